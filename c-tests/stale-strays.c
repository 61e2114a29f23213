/* What is written to a VDI that another client has deleted leaves no object behind. */
#define _XOPEN_SOURCE 700
#include "support.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>

#define SIZE (6 * OBJECT)

static int objects;

static int count(const char *path, const struct stat *status, int kind, struct FTW *ftw)
{
    (void)status;
    (void)ftw;
    objects += kind == FTW_F && strstr(path, "/data/");
    return 0;
}

static int count_objects(const struct lamb *lamb)
{
    objects = 0;
    nftw(lamb->directory, count, 16, FTW_PHYS); /* what disappears meanwhile is not counted */
    return objects;
}

int main(void)
{
    struct lamb *lamb = lamb_start();
    uint64_t start = monotonic_ms();
    sd_vdi_t vdi, again;
    sd_t writer, other;

    OK(sd_init(lamb->tcp, &writer));
    OK(sd_init(lamb->tcp, &other));
    vdi = create_vdi(writer, "a", SIZE);
    OK(sd_vdi_write(writer, vdi, "data", 4, (off_t)OBJECT, 0));
    OK(sd_snapshot_create(writer, vdi, "tag", NULL));
    OK(sd_vdi_write(writer, vdi, "own", 3, 0, 0));
    CHECK(count_objects(lamb) == 2);
    OK(sd_vdi_delete(other, "a"));

    for (int i = 0; i < 12; i++) /* its own, a shared one, none, each twice */
        CHECK(sd_vdi_write(writer, vdi, "x", 1, (off_t)(i / 2) * (off_t)OBJECT, 0) !=
              SD_RES_SUCCESS);
    OK(sd_snapshot_delete(other, "a", "tag", 0));
    again = create_vdi(other, "a", SIZE);
    OK(sd_vdi_write(other, again, "fresh", 5, 0, 0));
    OK(sd_vdi_close(&again));
    OK(sd_vdi_delete(other, "a"));
    while (count_objects(lamb) > 0) /* servers may remove them in the background */
        CHECK(monotonic_ms() - start < 30000);
    sd_vdi_close(&vdi);
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
