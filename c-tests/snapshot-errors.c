/* Snapshots that are not there, and names and tags that cannot be. */
#include "support.h"

#include <limits.h>
#include <string.h>

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *missing = vdi_name("missing");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT), out = (sd_vdi_t)&sd;
    char tag[257], long_name[257];
    int working;

    memset(tag, 't', 256);
    tag[256] = '\0';
    memset(long_name, 'n', 256);
    long_name[256] = '\0';

    FAILS(SD_RES_NO_TAG, sd_snapshot_open(sd, name, "tag", 0, &out));
    FAILS(SD_RES_NO_TAG, sd_snapshot_open(sd, name, NULL, 77, &out));
    FAILS(SD_RES_NO_VDI, sd_snapshot_open(sd, missing, "tag", 0, &out));
    FAILS(SD_RES_NO_VDI, sd_snapshot_open(sd, missing, NULL, 1, &out));
    FAILS(SD_RES_NO_TAG, sd_snapshot_delete(sd, name, "tag", 0));
    FAILS(SD_RES_NO_VDI, sd_snapshot_delete(sd, missing, "tag", 0));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_create(sd, vdi, tag, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_open(sd, name, tag, 0, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_open(sd, long_name, "tag", 0, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_open(sd, "", "tag", 0, &out));
    /* Neither a tag nor an id names no snapshot. */
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_open(sd, name, NULL, 0, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_open(sd, name, "", -1, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_open(sd, name, NULL, INT_MIN, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_delete(sd, name, NULL, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_delete(sd, name, "", -1));
    CHECK(count_snapshots(sd, name) == 0);

    /* The longest tag, and one that is not ASCII. */
    tag[255] = '\0';
    OK(sd_vdi_write(sd, vdi, "1", 1, 0, 0));
    OK(sd_snapshot_create(sd, vdi, tag, NULL));
    OK(sd_vdi_write(sd, vdi, "2", 1, 0, 0));
    OK(sd_snapshot_create(sd, vdi, "\xe6\x97\xa5\xe6\x9c\xac /\n", NULL));

    /* The id of the working VDI is not that of a snapshot. */
    working = (int)info_of(vdi).snap_id;
    FAILS(SD_RES_NO_TAG, sd_snapshot_open(sd, name, NULL, working, &out));
    OK(sd_vdi_close(&vdi));
    FAILS(SD_RES_NO_TAG, sd_snapshot_delete(sd, name, NULL, working));
    CHECK(out == (sd_vdi_t)&sd);
    out = open_snapshot(sd, name, tag);
    CHECK_CONTENT(sd, out, "1", 1, 0);
    OK(sd_vdi_close(&out));
    out = open_snapshot(sd, name, "\xe6\x97\xa5\xe6\x9c\xac /\n");
    CHECK_CONTENT(sd, out, "2", 1, 0);

    /* A tag decides over the id beside it. */
    OK(sd_vdi_close(&out));
    OK(sd_snapshot_open(sd, name, tag, working - 1, &out));
    CHECK_CONTENT(sd, out, "1", 1, 0);
    FAILS(SD_RES_NO_TAG, sd_snapshot_open(sd, name, "absent", working - 1, &out));
    FAILS(SD_RES_NO_TAG, sd_snapshot_delete(sd, name, "absent", working - 1));
    CHECK(count_snapshots(sd, name) == 2);
    OK(sd_close(&sd));
}
