/* A tag in use is SD_RES_VDI_EXIST and changes nothing; another VDI may have the same tag, and a
 * deleted snapshot's tag is free again. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *other_name = vdi_name("b");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT), other = create_vdi(sd, other_name, OBJECT);
    sd_vdi_t snapshot = (sd_vdi_t)&sd;
    uint32_t id;

    OK(sd_vdi_write(sd, vdi, "old", 4, 0, 0));
    OK(sd_snapshot_create(sd, vdi, "tag", NULL));
    OK(sd_vdi_write(sd, vdi, "new", 4, 0, 0));
    id = info_of(vdi).vdi_id;
    FAILS(SD_RES_VDI_EXIST, sd_snapshot_create(sd, vdi, "tag", &snapshot));
    CHECK(snapshot == (sd_vdi_t)&sd && info_of(vdi).vdi_id == id);
    CHECK(count_snapshots(sd, name) == 1);
    CHECK_CONTENT(sd, vdi, "new", 4, 0);

    OK(sd_snapshot_create(sd, other, "tag", NULL));
    OK(sd_snapshot_create(sd, vdi, "Tag", NULL));
    CHECK(count_snapshots(sd, name) == 2 && count_snapshots(sd, other_name) == 1);

    OK(sd_snapshot_delete(sd, name, "tag", 0));
    OK(sd_vdi_write(sd, vdi, "3rd", 4, 0, 0));
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    CHECK_CONTENT(sd, snapshot, "3rd", 4, 0);
    OK(sd_vdi_close(&snapshot));
    snapshot = open_snapshot(sd, name, "Tag");
    CHECK_CONTENT(sd, snapshot, "new", 4, 0);
    OK(sd_close(&sd));
}
