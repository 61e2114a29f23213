/* Clones that cannot be made leave nothing behind: a name in use, a source that is no snapshot or
 * is not there, names that cannot be. */
#include "support.h"

#include <string.h>

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *taken = vdi_name("taken"), *free_name = vdi_name("free");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT), other = create_vdi(sd, taken, OBJECT);
    sd_vdi_t snapshot, out = (sd_vdi_t)&sd;
    char long_name[257];
    int working;

    memset(long_name, 'n', 256);
    long_name[256] = '\0';
    OK(sd_vdi_write(sd, vdi, "parent", 6, 0, 0));
    OK(sd_vdi_write(sd, other, "other", 5, 0, 0));
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    working = (int)info_of(vdi).snap_id;

    FAILS(SD_RES_VDI_EXIST, sd_vdi_clone(sd, snapshot, taken, NULL, 0, 0, &out));
    FAILS(SD_RES_VDI_EXIST, sd_vdi_clone(sd, vdi, taken, "tag", 0, 0, NULL));
    FAILS(SD_RES_VDI_EXIST, sd_vdi_clone(sd, snapshot, name, NULL, 0, 0, &out));
    FAILS(SD_RES_NO_TAG, sd_vdi_clone(sd, vdi, free_name, "absent", 0, 0, &out));
    FAILS(SD_RES_NO_TAG, sd_vdi_clone(sd, vdi, free_name, NULL, 77, 0, &out));
    FAILS(SD_RES_NO_TAG, sd_vdi_clone(sd, vdi, free_name, NULL, working, 0, &out));
    FAILS(SD_RES_NO_TAG, sd_vdi_clone(sd, other, free_name, "tag", 0, 0, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_clone(sd, vdi, free_name, NULL, 0, 0, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_clone(sd, vdi, free_name, NULL, -1, 0, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_clone(sd, snapshot, "", NULL, 0, 0, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_clone(sd, snapshot, long_name, NULL, 0, 0, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_clone(sd, vdi, free_name, long_name, 0, 0, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_clone(sd, snapshot, free_name, NULL, 0, 32, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_clone(sd, snapshot, free_name, NULL, 0, -1, &out));
    CHECK(out == (sd_vdi_t)&sd);
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, free_name, &out));
    CHECK_CONTENT(sd, other, "other", 5, 0);
    CHECK_CONTENT(sd, vdi, "parent", 6, 0);
    CHECK_CONTENT(sd, snapshot, "parent", 6, 0);
    OK(sd_close(&sd));
}
