/* Quickstart: stores a file in a Sheepdog VDI, reads it back and compares every byte.
 *
 *     cc quickstart.c $(pkg-config --cflags --libs libsheepdog) -o quickstart
 *     ./quickstart 127.0.0.1:7000 FILE
 *
 * The pattern of every program that uses libsheepdog is here: connect, open a VDI, read and write
 * at offsets, close. Each call returns SD_RES_SUCCESS (0) or a result that sd_strerror explains. */
#include <sheepdog.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK ((size_t)1 << 20)

/* Says what went wrong, if anything did; true when nothing did. */
static bool succeeded(int result, const char *what)
{
    if (result != SD_RES_SUCCESS)
        fprintf(stderr, "quickstart: %s: %s\n", what, sd_strerror(result));
    return result == SD_RES_SUCCESS;
}

/* Fills the buffer from the file, with less only at the file's end. */
static bool read_file(FILE *file, char *buffer, size_t size)
{
    if (fread(buffer, 1, size, file) == size)
        return true;
    fprintf(stderr, "quickstart: reading the file: %s\n",
            ferror(file) ? strerror(errno) : "it became shorter meanwhile");
    return false;
}

/* Copies the file to the beginning of the VDI. */
static bool store(sd_t sd, sd_vdi_t vdi, FILE *file, size_t size, char *buffer)
{
    for (size_t done = 0; done < size; done += CHUNK) {
        size_t length = size - done < CHUNK ? size - done : CHUNK;

        if (!read_file(file, buffer, length) ||
            !succeeded(sd_vdi_write(sd, vdi, buffer, length, (off_t)done, 0), "sd_vdi_write"))
            return false;
    }
    /* A write is stable after the next flush, as with write and fsync on a file. */
    return succeeded(sd_vdi_flush(sd, vdi), "sd_vdi_flush");
}

/* Reads the VDI and compares it with the file. `buffer` has room for two chunks. */
static bool compare(sd_t sd, sd_vdi_t vdi, FILE *file, size_t size, char *buffer)
{
    rewind(file);
    for (size_t done = 0; done < size; done += CHUNK) {
        size_t length = size - done < CHUNK ? size - done : CHUNK;

        if (!read_file(file, buffer, length) ||
            !succeeded(sd_vdi_read(sd, vdi, buffer + CHUNK, length, (off_t)done), "sd_vdi_read"))
            return false;
        if (memcmp(buffer, buffer + CHUNK, length) != 0) {
            fprintf(stderr, "quickstart: the VDI differs from the file after byte %zu\n", done);
            return false;
        }
    }
    return true;
}

/* Prints the names of all VDIs; true if `name` is among them. */
static bool list(sd_t sd, const char *name)
{
    struct sd_list_iter iter;
    bool found = false;

    if (!succeeded(sd_vdi_list(sd, &iter), "sd_vdi_list"))
        return false;
    printf("VDIs in the cluster:\n");
    while (iter.has_next()) {
        const char *next = iter.next_string(); /* belongs to the iterator */

        printf("  %s\n", next);
        found = found || strcmp(next, name) == 0;
    }
    iter.destory(); /* the name is the design document's; `destroy` works as well */
    if (!found)
        fprintf(stderr, "quickstart: %s is not in the list\n", name);
    return found;
}

/* Opens the VDI through a connection of its own, as another program would, and compares. */
static bool read_back(const char *addr, const char *name, FILE *file, size_t size, char *buffer)
{
    sd_t sd;
    sd_vdi_t vdi;
    bool ok;

    if (!succeeded(sd_init(addr, &sd), addr))
        return false;
    ok = succeeded(sd_vdi_open(sd, name, &vdi), "sd_vdi_open") &&
         compare(sd, vdi, file, size, buffer);
    sd_close(&sd); /* closes the VDI as well */
    if (ok)
        printf("read it back through a second connection: all %zu bytes are the same\n", size);
    return ok;
}

static bool quickstart(const char *addr, const char *name, FILE *file, size_t size, char *buffer)
{
    sd_t sd;
    sd_vdi_t vdi;
    bool ok;

    if (!succeeded(sd_init(addr, &sd), addr))
        return false;
    printf("connected to %s\n", addr);
    /* As many copies as the cluster keeps by default (0), and no space taken before it is used. */
    if (!succeeded(sd_vdi_create(sd, name, size, 0, false, &vdi), "sd_vdi_create")) {
        sd_close(&sd);
        return false;
    }
    printf("created the VDI %s of %zu bytes\n", name, size);
    ok = store(sd, vdi, file, size, buffer);
    if (ok)
        printf("stored the file in writes of 1 MiB, and flushed\n");
    ok = succeeded(sd_vdi_close(&vdi), "sd_vdi_close") && ok;

    ok = ok && read_back(addr, name, file, size, buffer) && list(sd, name);

    /* The VDI is ours, so it goes, whatever failed before. */
    if (succeeded(sd_vdi_delete(sd, name), "sd_vdi_delete"))
        printf("deleted %s\n", name);
    else
        ok = false;
    sd_close(&sd);
    return ok;
}

int main(int argc, char **argv)
{
    char name[64];
    struct stat st;
    FILE *file;
    char *buffer;
    bool ok;

    if (argc != 3) {
        fprintf(stderr, "usage: quickstart ADDR FILE\n");
        return 2;
    }
    file = fopen(argv[2], "rb");
    if (!file || fstat(fileno(file), &st) != 0) {
        fprintf(stderr, "quickstart: %s: %s\n", argv[2], strerror(errno));
        return 1;
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        fprintf(stderr, "quickstart: %s: not a file with something in it\n", argv[2]);
        return 1;
    }
    buffer = malloc(2 * CHUNK);
    if (!buffer) {
        perror("quickstart");
        return 1;
    }
    snprintf(name, sizeof name, "quickstart-%ld", (long)getpid());

    ok = quickstart(argv[1], name, file, (size_t)st.st_size, buffer);
    free(buffer);
    fclose(file);
    return ok ? 0 : 1;
}
