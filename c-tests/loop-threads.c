/* While one thread runs the loop, others submit requests and make blocking calls on the same
 * handle; nobody wakes the loop. Callbacks come in the loop's thread. */
#include "loop.h"
#include "support.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#define SUBMITTERS 3
#define BLOCKERS 2
#define ROUNDS 40
#define DEPTH 8
#define SIZE (8 * KiB)

static sd_t sd;
static sd_vdi_t vdi;
static struct loop *loop;
static pthread_t loop_thread;


static void on_done(sd_t of, int result, void *ended)
{
    CHECK(of == sd);
    OK(result);
    CHECK(pthread_equal(pthread_self(), loop_thread));
    CHECK(sem_post(ended) == 0);
}

static void wait_for(sem_t *ended, int count)
{
    for (int i = 0; i < count; i++)
        while (sem_wait(ended) != 0)
            ;
}

static void *submit(void *opaque)
{
    size_t base = (size_t)opaque * MiB;
    unsigned char *data = malloc(DEPTH * SIZE);
    sem_t ended;

    CHECK(data && sem_init(&ended, 0, 0) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t seed = base + (uint64_t)round;

        fill(data, DEPTH * SIZE, seed);
        for (size_t i = 0; i < DEPTH; i++)
            OK(sd_vdi_awrite(sd, vdi, data + i * SIZE, SIZE, (off_t)(base + i * SIZE), 0, on_done,
                             &ended));
        wait_for(&ended, DEPTH);
        memset(data, 0, DEPTH * SIZE);
        for (size_t i = 0; i < DEPTH; i++)
            OK(sd_vdi_aread(sd, vdi, data + i * SIZE, SIZE, (off_t)(base + i * SIZE), on_done,
                            &ended));
        wait_for(&ended, DEPTH);
        unsigned char *want = malloc(DEPTH * SIZE);
        CHECK(want);
        fill(want, DEPTH * SIZE, seed);
        CHECK_BYTES(data, want, DEPTH * SIZE);
        free(want);
    }
    sem_destroy(&ended);
    free(data);
    return NULL;
}

static void *block(void *opaque)
{
    size_t base = (size_t)opaque * MiB;
    unsigned char data[SIZE];

    for (int round = 0; round < ROUNDS; round++) {
        fill(data, SIZE, base + (uint64_t)round);
        OK(sd_vdi_write(sd, vdi, data, SIZE, (off_t)base, 0));
        CHECK_CONTENT(sd, vdi, data, SIZE, base);
    }
    return NULL;
}

static void on_last(sd_t of, int result, void *opaque)
{
    (void)of, (void)opaque;
    OK(result);
    loop_stop(loop);
}

static void *run_all(void *opaque)
{
    pthread_t threads[SUBMITTERS + BLOCKERS];
    static char byte;

    for (size_t i = 0; i < SUBMITTERS + BLOCKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, i < SUBMITTERS ? submit : block, (void *)i) == 0);
    for (size_t i = 0; i < SUBMITTERS + BLOCKERS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    OK(sd_vdi_aread(sd, vdi, &byte, 1, 0, on_last, NULL));
    return opaque;
}

int main(void)
{
    pthread_t thread;

    loop_thread = pthread_self();
    sd = connect_to_server();
    vdi = create_vdi(sd, vdi_name("a"), 2 * OBJECT);
    loop = loop_new();
    OK(loop_attach(loop, sd));
    CHECK(pthread_create(&thread, NULL, run_all, NULL) == 0);
    loop_run(loop);
    CHECK(pthread_join(thread, NULL) == 0);
    /* There is no work, and the loop is not told otherwise. */
    for (int i = 0; poll(&(struct pollfd){ .fd = sd_get_fd(sd), .events = POLLIN }, 1, 0); i++) {
        CHECK(i < 10);
        OK(sd_dispatch(sd));
    }
    OK(sd_close(&sd));
    loop_free(loop);
}
