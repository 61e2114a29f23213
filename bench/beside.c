/* usage: beside ADDRESS [ROUNDS [READERS]]
 *
 * How fast asynchronous reads of 4 KiB are, 32 under way, beside READERS threads (2) that read
 * through the same handle and wait, as a part of how fast they are alone: both in turn, ROUNDS
 * times. Prints each round, and the median. */
#include <sheepdog.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define OBJECT ((size_t)4 << 20)
#define OBJECTS 16
#define DEPTH 32
#define SECONDS 0.5
#define MOST 64

static sd_t sd;
static sd_vdi_t vdi;
static atomic_bool stop;
static atomic_ulong waited;

struct request {
    unsigned char block[BLOCK];
    uint64_t random;
};

static unsigned long ended;
static unsigned under_way;
static bool enough;

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "beside: %s: %s\n", what, sd_last_error());
        exit(1);
    }
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static off_t somewhere(uint64_t *random)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (off_t)((*random >> 33) % (OBJECTS * OBJECT / BLOCK) * BLOCK);
}

static void *read_and_wait(void *opaque)
{
    uint64_t random = (uint64_t)(uintptr_t)opaque;
    unsigned char block[BLOCK];

    while (!stop) {
        must(sd_vdi_read(sd, vdi, block, BLOCK, somewhere(&random)), "sd_vdi_read");
        waited++;
    }
    return NULL;
}

static void begin(struct request *request);

static void has_ended(sd_t of, int result, void *opaque)
{
    (void)of;
    must(result, "sd_vdi_aread");
    ended++;
    under_way--;
    begin(opaque);
}

static void begin(struct request *request)
{
    if (enough)
        return;
    under_way++;
    must(sd_vdi_aread(sd, vdi, request->block, BLOCK, somewhere(&request->random), has_ended,
                      request),
         "sd_vdi_aread");
}

/* Asynchronous reads in a second, beside so many threads. */
static double rate(int readers)
{
    static struct request requests[DEPTH];
    pthread_t threads[MOST];
    double start;

    stop = enough = false;
    ended = 0;
    for (int i = 0; i < readers; i++)
        pthread_create(&threads[i], NULL, read_and_wait, (void *)(uintptr_t)(i + 1));
    start = now();
    for (int i = 0; i < DEPTH; i++) {
        requests[i].random = (uint64_t)i + 100;
        begin(&requests[i]);
    }
    while (under_way > 0) {
        must(sd_wait(sd, -1), "sd_wait");
        enough = enough || now() - start > SECONDS;
    }
    start = (double)ended / (now() - start);
    stop = true;
    for (int i = 0; i < readers; i++)
        pthread_join(threads[i], NULL);
    return start;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    int rounds = argc > 2 ? atoi(argv[2]) : 5, readers = argc > 3 ? atoi(argv[3]) : 2;
    double parts[MOST];
    unsigned char block[BLOCK] = "";
    char name[64];

    if (argc < 2 || rounds < 1 || rounds > MOST || readers < 0 || readers > MOST) {
        fprintf(stderr, "usage: beside ADDRESS [ROUNDS [READERS]]\n");
        return 2;
    }
    snprintf(name, sizeof name, "beside-%ld", (long)getpid());
    must(sd_init(argv[1], &sd), "sd_init");
    must(sd_vdi_create(sd, name, OBJECTS * OBJECT, 0, false, &vdi), "sd_vdi_create");
    for (int i = 0; i < OBJECTS; i++)
        must(sd_vdi_write(sd, vdi, block, BLOCK, (off_t)(i * OBJECT), 0), "sd_vdi_write");
    rate(0);
    for (int i = 0; i < rounds; i++) {
        double alone = rate(0), beside;

        waited = 0;
        beside = rate(readers);
        parts[i] = beside / alone;
        printf("%.0f a second alone, %.0f beside %d readers (%.0f of theirs): %.2f\n", alone, beside,
               readers, (double)waited / SECONDS, parts[i]);
    }
    qsort(parts, (size_t)rounds, sizeof *parts, by_size);
    printf("median %.2f, least %.2f\n", parts[rounds / 2], parts[0]);
    must(sd_vdi_close(&vdi), "sd_vdi_close");
    must(sd_vdi_delete(sd, name), "sd_vdi_delete");
    must(sd_close(&sd), "sd_close");
    return 0;
}
