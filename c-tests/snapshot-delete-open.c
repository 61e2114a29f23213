/* A snapshot that the same sd_t has open is not deleted: SD_RES_VDI_LOCKED until it is closed. An
 * open working VDI does not keep its snapshots, which are deleted by id as well as by tag. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, 2 * OBJECT), one, other;
    int second;

    OK(sd_vdi_write(sd, vdi, "one", 4, 0, 0));
    OK(sd_snapshot_create(sd, vdi, "first", &one));
    OK(sd_vdi_write(sd, vdi, "two", 4, 0, 0));
    OK(sd_snapshot_create(sd, vdi, "second", &other));
    second = (int)info_of(other).snap_id;
    OK(sd_vdi_close(&other));
    other = open_snapshot(sd, name, "first");

    FAILS(SD_RES_VDI_LOCKED, sd_snapshot_delete(sd, name, "first", 0));
    OK(sd_vdi_close(&one));
    FAILS(SD_RES_VDI_LOCKED, sd_snapshot_delete(sd, name, "first", 0));
    FAILS(SD_RES_VDI_LOCKED, sd_vdi_delete(sd, name)); /* the working VDI is open too */
    CHECK_CONTENT(sd, other, "one", 4, 0);

    OK(sd_snapshot_delete(sd, name, NULL, second));
    FAILS(SD_RES_NO_TAG, sd_snapshot_delete(sd, name, NULL, second));
    FAILS(SD_RES_NO_TAG, sd_snapshot_open(sd, name, "second", 0, &one));
    CHECK_CONTENT(sd, other, "one", 4, 0);
    CHECK_CONTENT(sd, vdi, "two", 4, 0);

    OK(sd_vdi_close(&other));
    OK(sd_snapshot_delete(sd, name, "first", 0));
    CHECK_CONTENT(sd, vdi, "two", 4, 0);
    OK(sd_vdi_write(sd, vdi, "three", 6, 1, 0));
    CHECK_CONTENT(sd, vdi, "tthree", 7, 0);

    /* An open snapshot does not keep the working VDI, and survives it. */
    OK(sd_snapshot_create(sd, vdi, "third", &one));
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_delete(sd, name));
    CHECK_CONTENT(sd, one, "tthree", 7, 0);
    OK(sd_close(&sd));
}
