/* NULL, closed and foreign handles, and NULL where a pointer is needed, give SD_RES_INVALID_PARMS
 * from every call about snapshots and clones; out parameters stay as they are. */
#include "support.h"

static void handles_are_refused(sd_t sd, sd_vdi_t vdi, const char *name)
{
    char data[4] = "old";
    sd_vdi_t out = (sd_vdi_t)data;

    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_create(sd, vdi, "new", &out));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_rollback(sd, vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_read(sd, vdi, data, 4, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_clone(sd, vdi, name, "tag", 0, 0, &out));
    CHECK_STR(data, "old");
    CHECK(out == (sd_vdi_t)data);
}

static void connection_is_refused(sd_t sd, const char *name)
{
    struct sd_list_iter iter = { .opaqe = &iter };
    sd_vdi_t out = (sd_vdi_t)&iter;

    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_open(sd, name, "tag", 0, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_list(sd, name, &iter));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_delete(sd, name, "tag", 0));
    CHECK(out == (sd_vdi_t)&iter && iter.opaqe == &iter);
}

int main(void)
{
    sd_t sd = connect_to_server(), other = connect_to_server(), closed_sd = other;
    const char *name = vdi_name("a"), *clone_name = vdi_name("clone");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT), snapshot, foreign, closed;
    char data[1];

    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    OK(sd_snapshot_open(sd, name, "tag", 0, &closed));
    foreign = open_snapshot(other, name, "tag");
    sd_vdi_t copy = closed;
    OK(sd_vdi_close(&closed));
    handles_are_refused(NULL, snapshot, clone_name);
    handles_are_refused(&data, snapshot, clone_name);
    handles_are_refused((sd_t)vdi, (sd_vdi_t)sd, clone_name);
    handles_are_refused(sd, NULL, clone_name);
    handles_are_refused(sd, (sd_vdi_t)&data, clone_name);
    handles_are_refused(sd, copy, clone_name);
    handles_are_refused(sd, foreign, clone_name);
    OK(sd_close(&other));
    handles_are_refused(closed_sd, snapshot, clone_name);
    handles_are_refused(closed_sd, foreign, clone_name);

    connection_is_refused(NULL, name);
    connection_is_refused(&data, name);
    connection_is_refused((sd_t)vdi, name);
    connection_is_refused(closed_sd, name);
    connection_is_refused(sd, NULL);
    connection_is_refused(sd, "");

    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_create(sd, vdi, NULL, NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_create(sd, vdi, "", NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_open(sd, name, "tag", 0, NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_open(sd, name, NULL, 0, &closed));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_list(sd, name, NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_read(sd, snapshot, NULL, 1, 0));
    OK(sd_snapshot_read(sd, snapshot, NULL, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_clone(sd, vdi, NULL, "tag", 0, 0, NULL));
    CHECK(count_snapshots(sd, name) == 1);
    OK(sd_close(&sd));
}
