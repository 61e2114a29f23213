/* Copies a VDI to a file while it is being written to: what the file gets is a snapshot, whose
 * holes are holes of the file. */
#include <sheepdog.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK ((size_t)4 << 20)

struct copy {
    sd_t sd;
    sd_vdi_t snapshot;
    int fd;
    char *data;
    size_t copied;
    int result;
};

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, sd_last_error());
        exit(1);
    }
}

/* Copies one extent: the functions of sd_vdi_block_status() may call the library. */
static int copy_extent(off_t offset, size_t len, int status, void *opaque)
{
    struct copy *copy = opaque;

    if (status == SD_EXTENT_HOLE)
        return 0;
    for (size_t size; len > 0; len -= size, offset += (off_t)size) {
        size = len < CHUNK ? len : CHUNK;
        copy->result = sd_snapshot_read(copy->sd, copy->snapshot, copy->data, size, offset);
        if (copy->result == SD_RES_SUCCESS &&
            pwrite(copy->fd, copy->data, size, offset) != (ssize_t)size)
            copy->result = SD_RES_EIO;
        if (copy->result != SD_RES_SUCCESS)
            return 1; /* ends the walk */
        copy->copied += size;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct copy copy = { .data = malloc(CHUNK) };
    FILE *file = tmpfile();
    char text[7] = "";
    sd_vdi_t vdi;
    uint64_t size;

    if (!copy.data || !file)
        return 1;
    copy.fd = fileno(file);
    must(sd_init(argc > 1 ? argv[1] : NULL, &copy.sd), "connecting");
    must(sd_vdi_create(copy.sd, "database", 64 << 20, 0, false, &vdi), "creating");
    must(sd_vdi_write(copy.sd, vdi, "before", 6, 32 << 20, 0), "writing");

    must(sd_snapshot_create(copy.sd, vdi, "tonight", &copy.snapshot), "taking a snapshot");
    must(sd_vdi_write(copy.sd, vdi, "behind", 6, 32 << 20, 0), "writing meanwhile");
    must(sd_vdi_size(copy.snapshot, &size), "asking for the size");
    if (ftruncate(copy.fd, (off_t)size) != 0)
        return 1;
    must(sd_vdi_block_status(copy.sd, copy.snapshot, 0, size, copy_extent, &copy), "walking");
    must(copy.result, "copying");

    if (pread(copy.fd, text, 6, 32 << 20) != 6)
        return 1;
    printf("copied %d of %d MiB: \"%s\"\n", (int)(copy.copied >> 20), (int)(size >> 20), text);
    must(sd_vdi_close(&copy.snapshot), "closing the snapshot");
    must(sd_snapshot_delete(copy.sd, "database", "tonight", 0), "deleting the snapshot");
    free(copy.data);
    fclose(file);
    return sd_close(&copy.sd);
}
