/* A load generator written by hand, with nothing but the C library: what the driver `tasks` is held to by
 * scripts/client_peers.sh. One client is a loop of write(2) and read(2), several are an event loop on epoll. Every
 * request has a number of its own, every reply is compared with its request, and every latency is counted.
 *
 *   load PORT CLIENTS MILLISECONDS     prints the replies per second
 */
#include "../../servers/peers/peer.h"

#include <stdint.h>
#include <sys/epoll.h>
#include <time.h>

enum { HEADER = 24, PAYLOAD = 64, FRAME = HEADER + PAYLOAD, BUCKETS = 1 << 16 };

struct client {
    int fd;
    uint64_t sent_ns;
    unsigned char frame[FRAME];
};

static uint64_t number, replies, counts[BUCKETS];

static uint64_t now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void open_client(struct client *client, int port) {
    int on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };

    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0) die("socket");
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");

    memcpy(client->frame, "ECH\1", 4);
    client->frame[15] = PAYLOAD;
    for (int i = HEADER; i < FRAME; i++) client->frame[i] = random();
}

static void send_request(struct client *client) {
    number++;
    memcpy(client->frame + HEADER - sizeof number, &number, sizeof number);
    client->sent_ns = now();
    if (write(client->fd, client->frame, FRAME) != FRAME) die("write");
}

/* Receives and checks a reply, which on loopback arrives whole; returns the time. */
static uint64_t receive_reply(struct client *client) {
    unsigned char reply[FRAME + 1];
    uint64_t received_ns, bucket;

    if (read(client->fd, reply, sizeof reply) != FRAME) die("read");
    received_ns = now();
    if (memcmp(reply, client->frame, FRAME) != 0) die("a wrong reply");

    bucket = (received_ns - client->sent_ns) >> 8;
    counts[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    replies++;
    return received_ns;
}

static void run_one(struct client *client, uint64_t end_ns) {
    do {
        send_request(client);
    } while (receive_reply(client) < end_ns);
}

static void run_many(struct client *clients, int many, uint64_t end_ns) {
    struct epoll_event events[256];
    uint64_t now_ns = 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    for (int i = 0; i < many; i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &event);
        send_request(&clients[i]);
    }
    while (now_ns < end_ns) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            now_ns = receive_reply(&clients[events[i].data.u32]);
            send_request(&clients[events[i].data.u32]);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: load PORT CLIENTS MILLISECONDS\n");
        return 1;
    }
    int many = atoi(argv[2]);
    struct client *clients = calloc(many, sizeof *clients);
    for (int i = 0; i < many; i++) open_client(&clients[i], atoi(argv[1]));

    uint64_t start_ns = now(), end_ns = start_ns + atoll(argv[3]) * 1000000;
    if (many == 1) {
        run_one(clients, end_ns);
    } else {
        run_many(clients, many, end_ns);
    }
    printf("%.0f\n", replies * 1e9 / (now() - start_ns));
}
