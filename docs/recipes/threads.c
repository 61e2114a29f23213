/* Shares a VDI among threads: every call may be made in every thread, with no lock around it. */
#include <sheepdog.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS 4

static sd_t sd;
static sd_vdi_t vdi;

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, sd_last_error()); /* of this thread's last call */
        exit(1);
    }
}

static void *work(void *opaque)
{
    const char *letter = opaque;

    for (int i = 0; i < 100; i++)
        must(sd_vdi_write(sd, vdi, letter, 1, i * THREADS + (*letter - 'a'), 0), "writing");
    return NULL;
}

int main(int argc, char **argv)
{
    static char letters[THREADS + 1] = "abcd", text[4 * THREADS + 1];
    pthread_t threads[THREADS];

    must(sd_init(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    must(sd_vdi_create(sd, "shared", 4 << 20, 0, false, &vdi), "creating");
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, &letters[i]) != 0)
            return 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    must(sd_vdi_read(sd, vdi, text, sizeof text - 1, 99 * THREADS - 12), "reading");
    printf("%s\n", text);
    return sd_close(&sd);
}
