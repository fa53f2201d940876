/* An echo server (RFC 862) with a thread per connection, to try the gate with.
 *
 *     cc -O2 -pthread -o echo echo.c && ./echo PORT [STEPS]
 *
 * Before each reply it does STEPS steps of useless arithmetic, 0 if not given: a known slow-down. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static long steps;

/* Each step needs the result of the one before, and the volatile store keeps the compiler from leaving them out. */
static void burn(void) {
    static _Thread_local volatile uint64_t result;
    uint64_t value = result;

    for (long step = 0; step < steps; step++) value = value * 6364136223846793005u + 1442695040888963407u;
    result = value;
}

static void *echo(void *argument) {
    int fd = (intptr_t)argument;
    char buffer[64 << 10];
    ssize_t count;

    while ((count = read(fd, buffer, sizeof buffer)) > 0) {
        burn();
        for (ssize_t sent = 0, n; sent < count; sent += n) {
            n = write(fd, buffer + sent, count - sent);
            if (n < 0) goto end;
        }
    }
end:
    close(fd);
    return NULL;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: echo PORT [STEPS]\n");
        return 1;
    }
    if (argc > 2) steps = atol(argv[2]);
    signal(SIGPIPE, SIG_IGN);

    int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(atoi(argv[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    if (listener < 0) die("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* Accepted sockets inherit it. */
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (listen(listener, 1024) < 0) die("listen");

    for (;;) {
        pthread_t thread;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
        if (fd < 0) die("accept");
        if (pthread_create(&thread, NULL, echo, (void *)(intptr_t)fd) == 0) {
            pthread_detach(thread);
        } else {
            close(fd);
        }
    }
}
