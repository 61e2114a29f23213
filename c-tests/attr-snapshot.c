/* Attributes belong to the VDI of that name: they survive snapshots, rollbacks, resizes and writes,
 * and a clone does not have its parent's. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *clone_name = vdi_name("clone");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT), snapshot;
    char got[5];

    OK(sd_vdi_setattr(sd, name, "k", "value", 5));
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    OK(sd_vdi_getattr(sd, name, "k", got, 5));
    CHECK_BYTES(got, "value", 5);
    OK(sd_vdi_setattr(sd, name, "k", "newer", 5));

    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    OK(sd_vdi_resize(sd, vdi, 2 * OBJECT));
    OK(sd_snapshot_rollback(sd, snapshot));
    OK(sd_vdi_getattr(sd, name, "k", got, 5));
    CHECK_BYTES(got, "newer", 5);

    OK(sd_vdi_clone(sd, snapshot, clone_name, NULL, 0, 0, NULL));
    FAILS(SD_RES_NO_OBJ, sd_vdi_getattr(sd, clone_name, "k", got, 5));
    OK(sd_vdi_close(&snapshot));
    OK(sd_snapshot_delete(sd, name, "tag", 0));
    OK(sd_vdi_getattr(sd, name, "k", got, 5));
    CHECK_BYTES(got, "newer", 5);
    OK(sd_vdi_delattr(sd, name, "k"));
    OK(sd_close(&sd));
}
