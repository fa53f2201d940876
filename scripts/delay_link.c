/* A link with a delay between two network namespaces, for kernels without netem (tc-netem(8)).
 *
 *   delay_link NAMESPACE ADDRESS NAMESPACE ADDRESS ROUND-TRIP-MICROSECONDS
 *
 * Makes a TUN device `slow` in each namespace, with its address, says "up", and passes packets on, each half a round
 * trip after it came. Ends, and removes both devices, when the standard input ends. Needs root and ip(8). */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MTU = 1500, QUEUE = 16384 };

/* The packets under way in one direction, in the order in which they came. */
struct direction {
    int from, to;
    unsigned first, count;
    struct packet {
        long long due_ns;
        int length;
        char bytes[MTU];
    } packets[QUEUE];
};

static void fail(const char *what) {
    fprintf(stderr, "delay_link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* A TUN device in a namespace, with an address and the way to its peer. */
static int device(const char *namespace, const char *address, const char *peer) {
    char text[256];
    int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    snprintf(text, sizeof text, "/run/netns/%s", namespace);
    int other = open(text, O_RDONLY | O_CLOEXEC);
    if (own < 0 || other < 0 || setns(other, CLONE_NEWNET) < 0) fail(text);

    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    struct ifreq request = {.ifr_name = "slow", .ifr_flags = IFF_TUN | IFF_NO_PI};
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0) fail("/dev/net/tun");
    if (setns(own, CLONE_NEWNET) < 0) fail("setns");
    close(own);
    close(other);

    snprintf(text, sizeof text, "ip -n %s address add %s peer %s dev slow && ip -n %s link set slow up mtu %d", namespace,
             address, peer, namespace, MTU);
    if (system(text) != 0) exit(1);
    return tun;
}

/* Takes all packets that have come. A full queue drops what comes, as routers do. */
static void take(struct direction *way, long long delay_ns) {
    char spare[MTU];
    for (;;) {
        struct packet *next = &way->packets[(way->first + way->count) % QUEUE];
        int is_full = way->count == QUEUE;
        int length = read(way->from, is_full ? spare : next->bytes, MTU);
        if (length <= 0) return;
        if (is_full) continue;
        next->length = length;
        next->due_ns = now_ns() + delay_ns;
        way->count++;
    }
}

/* Passes on what is due. Returns when the next packet is, or never_ns if there is none. */
static long long pass(struct direction *way, long long never_ns) {
    while (way->count > 0) {
        struct packet *packet = &way->packets[way->first];
        if (packet->due_ns > now_ns()) return packet->due_ns;
        if (write(way->to, packet->bytes, packet->length) < 0 && errno != EAGAIN && errno != EIO) fail("write");
        way->first = (way->first + 1) % QUEUE;
        way->count--;
    }
    return never_ns;
}

int main(int count, char **words) {
    if (count != 6) {
        fprintf(stderr, "usage: delay_link NAMESPACE ADDRESS NAMESPACE ADDRESS ROUND-TRIP-MICROSECONDS\n");
        return 1;
    }

    long long delay_ns = atoll(words[5]) * 1000 / 2;
    static struct direction there, back;
    there.from = back.to = device(words[1], words[2], words[4]);
    there.to = back.from = device(words[3], words[4], words[2]);
    puts("up");
    fflush(stdout);

    for (;;) {
        long long now = now_ns(), never = now + 1000000000LL;
        long long next = pass(&there, never), other = pass(&back, never);
        if (other < next) next = other;

        struct pollfd ends[] = {{there.from, POLLIN, 0}, {back.from, POLLIN, 0}, {0, POLLIN, 0}};
        long long left = next > now ? next - now : 0;
        struct timespec wait = {left / 1000000000LL, left % 1000000000LL};
        if (ppoll(ends, 3, &wait, NULL) < 0 && errno != EINTR) fail("ppoll");
        if (ends[2].revents != 0 && read(0, words[0], 1) <= 0) return 0;
        take(&there, delay_ns);
        take(&back, delay_ns);
    }
}
