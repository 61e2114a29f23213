/* Tries something out on a VDI, and goes back to what it was. */
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
    char text[7] = "";
    sd_t sd;
    sd_vdi_t vdi, snapshot;

    must(sd_init(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    must(sd_vdi_create(sd, "settings", 4 << 20, 0, false, &vdi), "creating");
    must(sd_vdi_write(sd, vdi, "proven", 6, 0, 0), "writing");
    must(sd_snapshot_create(sd, vdi, "proven", &snapshot), "taking a snapshot");
    must(sd_vdi_write(sd, vdi, "daring", 6, 0, 0), "trying something out");

    /* `vdi` stays open, and goes on with the old content. */
    must(sd_snapshot_rollback(sd, snapshot), "going back");
    must(sd_vdi_read(sd, vdi, text, 6, 0), "reading");
    printf("%s\n", text);
    return sd_close(&sd);
}
