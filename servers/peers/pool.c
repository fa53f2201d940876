/* A fixed number of worker threads, and a queue with a mutex and a condition. */
#include "peer.h"

#include <pthread.h>
#include <signal.h>

enum { WORKERS = 64, QUEUE = 1024 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER;
static pthread_cond_t emptied = PTHREAD_COND_INITIALIZER;
static int queue[QUEUE];
static unsigned head, tail;

static void *work(void *unused) {
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&mutex);
        while (head == tail) pthread_cond_wait(&filled, &mutex);
        int fd = queue[head++ % QUEUE];
        pthread_cond_signal(&emptied);
        pthread_mutex_unlock(&mutex);
        echo(fd);
    }
    return NULL;
}

int main(int argc, char **argv) {
    int listener = listen_on(argv[argc - 1], 0);
    pthread_attr_t attributes;

    signal(SIGPIPE, SIG_IGN);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    for (int i = 0; i < WORKERS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, work, NULL) != 0) die("pthread_create");
    }

    for (;;) {
        int fd = accept_from(listener);
        pthread_mutex_lock(&mutex);
        while (tail - head == QUEUE) pthread_cond_wait(&emptied, &mutex);
        queue[tail++ % QUEUE] = fd;
        pthread_cond_signal(&filled);
        pthread_mutex_unlock(&mutex);
    }
}
