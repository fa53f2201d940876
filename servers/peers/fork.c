/* A process per connection. */
#include "peer.h"

#include <signal.h>
#include <sys/wait.h>

static void reap(int signal) {
    int error = errno;
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0) {}
    errno = error;
}

int main(int argc, char **argv) {
    int listener = listen_on(argv[argc - 1], 0);
    struct sigaction action = {.sa_handler = reap, .sa_flags = SA_RESTART};

    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGCHLD, &action, NULL);

    for (;;) {
        int fd = accept_from(listener);
        pid_t child = fork();
        if (child == 0) {
            close(listener);
            echo(fd);
            _exit(0);
        }
        close(fd);
    }
}
