/* Shared by the peers: a listening socket, and the echo of one connection (RFC 862) with blocking
 * calls. Each peer is its design written by hand, with nothing but the C library: the model of the
 * same design is held to it by scripts/peers.sh. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline int listen_on(const char *port, int flags) {
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(atoi(port)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };

    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (listen(fd, 1024) < 0) die("listen");
    return fd;
}

static inline int accept_from(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) return fd;
        if (errno != EINTR && errno != ECONNABORTED) die("accept");
    }
}

/* Large enough for a request of 64 KiB in one read. Untouched pages cost nothing. */
enum { BUFFER = 128 << 10 };

static inline void echo(int fd) {
    char buffer[BUFFER];
    ssize_t count;

    while ((count = read(fd, buffer, sizeof buffer)) > 0) {
        for (ssize_t sent = 0, n; sent < count; sent += n) {
            n = write(fd, buffer + sent, count - sent);
            if (n < 0) goto end;
        }
    }
end:
    close(fd);
}
