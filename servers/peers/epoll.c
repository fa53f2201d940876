/* One thread, and an event loop on epoll. It waits for room with poll(2), which an echo of small
 * requests never needs. */
#include "peer.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>

static char buffer[BUFFER];

/* Echoes what has arrived; returns 0 at the end of the stream. */
static int serve(int fd) {
    ssize_t count = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);

    if (count < 0) return errno == EAGAIN || errno == EINTR;
    for (ssize_t sent = 0; sent < count;) {
        ssize_t n = send(fd, buffer + sent, count - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            sent += n;
        } else if (errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            poll(&room, 1, -1);
        } else {
            return 0;
        }
    }
    return count > 0;
}

int main(int argc, char **argv) {
    int listener = listen_on(argv[argc - 1], SOCK_NONBLOCK);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    struct epoll_event events[256];

    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (!serve(fd)) close(fd);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
                event.data.fd = fd;
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
            }
        }
    }
}
