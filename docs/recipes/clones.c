/* Makes disks of virtual machines from one image: each shares the image's objects until it writes
 * to them. */
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

int main(int argc, char **argv)
{
    char name[32], text[9] = "";
    sd_t sd;
    sd_vdi_t image, clone;

    must(sd_init(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    must(sd_vdi_create(sd, "debian", 1 << 30, 0, false, &image), "creating the image");
    must(sd_vdi_write(sd, image, "a system", 8, 0, 0), "filling it");
    must(sd_snapshot_create(sd, image, "12.1", NULL), "freezing it");

    for (int i = 1; i <= 3; i++) {
        snprintf(name, sizeof name, "guest%d", i);
        must(sd_vdi_clone(sd, image, name, "12.1", 0, 0, &clone), "cloning");
        must(sd_vdi_write(sd, clone, name, 6, 4096, 0), "writing to the clone");
        must(sd_vdi_read(sd, clone, text, 8, 0), "reading from it");
        printf("%s begins with \"%s\"\n", name, text);
        must(sd_vdi_close(&clone), "closing the clone");
    }
    return sd_close(&sd);
}
