/* Finds what has changed from one snapshot to the next: in the later one, what is its own, and what
 * it no longer has. That is what an incremental backup copies. */
#include <sheepdog.h>

#include <stdio.h>
#include <stdlib.h>

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, sd_last_error());
        exit(1);
    }
}

/* What a snapshot shares with those before it has not changed since. */
static int print_change(off_t offset, size_t len, int status, void *opaque)
{
    (void)opaque;
    if (status != SD_EXTENT_SHARED)
        printf("%3d MiB + %d MiB: %s\n", (int)(offset >> 20), (int)(len >> 20),
               status == SD_EXTENT_HOLE ? "zeros" : "new data");
    return 0;
}

int main(int argc, char **argv)
{
    const size_t size = 24 << 20;
    sd_t sd;
    sd_vdi_t vdi, tuesday;

    must(sd_init(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    must(sd_vdi_create(sd, "diary", size, 0, true, &vdi), "creating");
    must(sd_snapshot_create(sd, vdi, "monday", NULL), "taking a snapshot");
    must(sd_vdi_write(sd, vdi, "rain", 4, 9 << 20, 0), "writing");
    must(sd_vdi_discard(sd, vdi, 16 << 20, 4 << 20), "discarding");
    must(sd_snapshot_create(sd, vdi, "tuesday", &tuesday), "taking another");
    must(sd_vdi_write(sd, vdi, "sun", 3, 0, 0), "writing what is not in it");

    must(sd_vdi_block_status(sd, tuesday, 0, size, print_change, NULL), "comparing");
    return sd_close(&sd);
}
