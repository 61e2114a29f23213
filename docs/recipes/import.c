/* Stores a file in a VDI, and takes no space for the parts of it that are zeros. */
#include <sheepdog.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)4 << 20) /* an object, usually: sd_vdi_get_info() tells io_opt */

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, sd_last_error());
        exit(1);
    }
}

static bool is_zero(const char *data, size_t size)
{
    return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

/* A file of 64 MiB to begin with, which has something at its end alone. */
static FILE *make_file(void)
{
    FILE *file = tmpfile();

    if (!file || fseek(file, (64 << 20) - 3, SEEK_SET) != 0 || fputs("end", file) == EOF) {
        perror("the file");
        exit(1);
    }
    return file;
}

int main(int argc, char **argv)
{
    FILE *file = make_file();
    char *data = malloc(CHUNK);
    off_t offset = 0;
    struct sd_vdi_info info;
    sd_t sd;
    sd_vdi_t vdi;
    size_t size;

    if (!data)
        return 1;
    must(sd_init(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    fseek(file, 0, SEEK_END);
    must(sd_vdi_create(sd, "imported", (size_t)ftell(file), 0, false, &vdi), "creating");
    rewind(file);
    while ((size = fread(data, 1, CHUNK, file)) > 0) {
        /* A new VDI reads as zeros: there is nothing to do for those. */
        if (!is_zero(data, size))
            must(sd_vdi_write(sd, vdi, data, size, offset, 0), "writing");
        offset += (off_t)size;
    }
    if (ferror(file)) {
        perror("reading");
        return 1;
    }
    must(sd_vdi_flush(sd, vdi), "flushing");
    must(sd_vdi_get_info(vdi, &info, sizeof info), "asking what it is");
    printf("%d MiB, of which %d MiB take space\n", (int)(info.size >> 20),
           (int)(info.allocated >> 20));
    free(data);
    fclose(file);
    return sd_close(&sd);
}
