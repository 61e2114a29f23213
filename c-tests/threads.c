/* Threads that share one handle write disjoint blocks, in objects of their own and interleaved in
 * the same objects, which none of them has allocated before: nobody's block is lost. */
#include "support.h"

#include <pthread.h>
#include <stdlib.h>

#define BLOCK (64 * KiB)
#define BLOCKS_EACH 32
#define MAX_THREADS 8

struct worker {
    pthread_t thread;
    pthread_barrier_t *start;
    sd_t sd;
    sd_vdi_t vdi;
    size_t first, step; /* in blocks */
};

static void *work(void *opaque)
{
    struct worker *w = opaque;
    unsigned char *data = malloc(BLOCK), *got = poisoned(BLOCK);

    pthread_barrier_wait(w->start);
    for (size_t i = 0; i < BLOCKS_EACH; i++) {
        size_t block = w->first + i * w->step;
        fill(data, BLOCK, block);
        OK(sd_vdi_write(w->sd, w->vdi, data, BLOCK, (off_t)(block * BLOCK), 0));
        OK(sd_vdi_read(w->sd, w->vdi, got, BLOCK, (off_t)(block * BLOCK)));
        CHECK_BYTES(got, data, BLOCK);
    }
    free(data);
    free(got);
    return NULL;
}

static void run(sd_t sd, const char *name, size_t threads, bool interleaved)
{
    size_t blocks = threads * BLOCKS_EACH;
    unsigned char *want = malloc(BLOCK), *got = poisoned(BLOCK);
    struct worker workers[MAX_THREADS];
    pthread_barrier_t start;
    sd_vdi_t vdi = create_vdi(sd, name, blocks * BLOCK);

    CHECK(pthread_barrier_init(&start, NULL, (unsigned)threads) == 0);
    for (size_t t = 0; t < threads; t++) {
        workers[t] = (struct worker){ .start = &start, .sd = sd, .vdi = vdi,
                                      .first = interleaved ? t : t * BLOCKS_EACH,
                                      .step = interleaved ? threads : 1 };
        CHECK(pthread_create(&workers[t].thread, NULL, work, &workers[t]) == 0);
    }
    for (size_t t = 0; t < threads; t++)
        CHECK(pthread_join(workers[t].thread, NULL) == 0);
    pthread_barrier_destroy(&start);

    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_open(sd, name, &vdi));
    for (size_t block = 0; block < blocks; block++) {
        fill(want, BLOCK, block);
        OK(sd_vdi_read(sd, vdi, got, BLOCK, (off_t)(block * BLOCK)));
        CHECK_BYTES(got, want, BLOCK);
    }
    free(want);
    free(got);
    OK(sd_vdi_close(&vdi));
}

int main(void)
{
    sd_t sd = connect_to_server();

    run(sd, vdi_name("two-disjoint"), 2, false);
    run(sd, vdi_name("two-interleaved"), 2, true);
    run(sd, vdi_name("eight-disjoint"), 8, false);
    run(sd, vdi_name("eight-interleaved"), 8, true);
    OK(sd_close(&sd));
}
