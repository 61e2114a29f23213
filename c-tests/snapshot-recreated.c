/* Snapshots stay when their VDI is deleted; a VDI created anew under the name starts empty, and the
 * old snapshots can be read, cloned and rolled back to. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, 2 * OBJECT), snapshot, clone;
    uint32_t id;

    need_names_to_come_back(sd);
    OK(sd_vdi_write(sd, vdi, "old", 4, 0, 0));
    OK(sd_snapshot_create(sd, vdi, "old", NULL));
    OK(sd_vdi_write(sd, vdi, "lost", 5, 0, 0));
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_delete(sd, name));
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, name, &vdi));
    FAILS(SD_RES_NO_VDI, sd_vdi_delete(sd, name));
    snapshot = open_snapshot(sd, name, "old");
    CHECK_CONTENT(sd, snapshot, "old", 4, 0);
    id = info_of(snapshot).snap_id;

    vdi = create_vdi(sd, name, OBJECT);
    CHECK_CONTENT(sd, vdi, NULL, OBJECT, 0);
    CHECK(info_of(vdi).snap_id > id && info_of(vdi).parent_vdi_id == 0);
    CHECK_CONTENT(sd, snapshot, "old", 4, 0);
    FAILS(SD_RES_VDI_EXIST, sd_snapshot_create(sd, vdi, "old", NULL));
    OK(sd_vdi_write(sd, vdi, "new", 4, 0, 0));
    OK(sd_snapshot_create(sd, vdi, "new", NULL));
    OK(sd_vdi_clone(sd, snapshot, vdi_name("b"), NULL, 0, 0, &clone));
    CHECK_CONTENT(sd, clone, "old", 4, 0);

    OK(sd_snapshot_rollback(sd, snapshot));
    CHECK_CONTENT(sd, vdi, "old", 4, 0);
    OK(sd_vdi_close(&snapshot));
    snapshot = open_snapshot(sd, name, "new");
    CHECK_CONTENT(sd, snapshot, "new", 4, 0);
    OK(sd_close(&sd));
}
