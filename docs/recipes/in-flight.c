/* Keeps many requests in flight without an event loop: sd_wait() waits for work, and does it. */
#include <sheepdog.h>

#include <stdio.h>
#include <stdlib.h>

#define BLOCK 65536
#define BLOCKS 1024
#define DEPTH 32

struct progress {
    int in_flight, done;
    int result; /* the first that was no success */
};

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, sd_strerror(result));
        exit(1);
    }
}

static void on_written(sd_t sd, int result, void *opaque)
{
    struct progress *progress = opaque;

    (void)sd;
    progress->in_flight--;
    progress->done++;
    if (progress->result == SD_RES_SUCCESS)
        progress->result = result;
}

int main(int argc, char **argv)
{
    struct progress progress = { 0 };
    static char data[BLOCK] = "block";
    sd_t sd;
    sd_vdi_t vdi;
    int result;

    must(sd_init(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    must(sd_vdi_create(sd, "fast", (size_t)BLOCKS * BLOCK, 0, false, &vdi), "creating");
    for (int block = 0; block < BLOCKS && progress.result == SD_RES_SUCCESS;) {
        result = SD_RES_NO_MEM;
        if (progress.in_flight < DEPTH)
            result = sd_vdi_awrite(sd, vdi, data, BLOCK, (off_t)block * BLOCK, SD_WRITE_NOCOPY,
                                   on_written, &progress);
        if (result == SD_RES_SUCCESS) {
            progress.in_flight++;
            block++;
        } else if (result == SD_RES_NO_MEM && progress.in_flight > 0) {
            must(sd_wait(sd, -1), "waiting"); /* enough is in flight */
        } else {
            must(result, "writing");
        }
    }
    while (progress.in_flight > 0)
        must(sd_wait(sd, -1), "waiting for the rest");
    must(progress.result, "writing");
    must(sd_vdi_flush(sd, vdi), "flushing");
    printf("%d blocks written\n", progress.done);
    return sd_close(&sd);
}
