/* A thread per connection. */
#include "peer.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>

static void *serve(void *fd) {
    echo((intptr_t)fd);
    return NULL;
}

int main(int argc, char **argv) {
    int listener = listen_on(argv[argc - 1], 0);
    pthread_attr_t attributes;

    signal(SIGPIPE, SIG_IGN);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 << 10);

    for (;;) {
        pthread_t thread;
        int fd = accept_from(listener);
        if (pthread_create(&thread, &attributes, serve, (void *)(intptr_t)fd) != 0) close(fd);
    }
}
