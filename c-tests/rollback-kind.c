/* A name can have a snapshot of one object size and a working VDI of another. Open handles cannot
 * go on with another size: such a rollback is refused before anything is changed. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    struct sd_create_opts options = { .object_size = OBJECT / 2 };
    sd_vdi_t vdi = create_vdi(sd, name, 2 * OBJECT), snapshot;

    need_object_sizes(sd);
    need_names_to_come_back(sd);
    OK(sd_vdi_write(sd, vdi, "first", 6, 0, 0));
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_delete(sd, name));
    OK(sd_vdi_create_ex(sd, name, OBJECT, &options, sizeof options, &vdi));
    OK(sd_vdi_write(sd, vdi, "later", 6, 0, 0));

    FAILS(SD_RES_VDI_LOCKED, sd_snapshot_rollback(sd, snapshot));
    OK(sd_vdi_refresh(sd, vdi));
    CHECK(info_of(vdi).object_size == OBJECT / 2 && info_of(vdi).size == OBJECT);
    CHECK_CONTENT(sd, vdi, "later", 6, 0);
    OK(sd_vdi_write(sd, vdi, "still", 6, (off_t)OBJECT / 2, 0));

    OK(sd_vdi_close(&vdi));
    OK(sd_snapshot_rollback(sd, snapshot));
    OK(sd_vdi_open(sd, name, &vdi));
    CHECK(info_of(vdi).object_size == OBJECT && info_of(vdi).size == 2 * OBJECT);
    CHECK_CONTENT(sd, vdi, "first", 6, 0);
    OK(sd_close(&sd));
}
