/* Only a snapshot can be rolled back to; clones and other VDIs are not touched by a rollback, and
 * it also works where no working VDI is left. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *clone_name = vdi_name("clone");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT), clone, snapshot;

    OK(sd_vdi_write(sd, vdi, "first", 6, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_rollback(sd, vdi));
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    OK(sd_vdi_clone(sd, snapshot, clone_name, NULL, 0, 0, &clone));
    OK(sd_vdi_write(sd, clone, "clone", 6, 0, 0));
    OK(sd_vdi_write(sd, vdi, "later", 6, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_snapshot_rollback(sd, clone));
    CHECK_CONTENT(sd, vdi, "later", 6, 0);

    OK(sd_snapshot_rollback(sd, snapshot));
    CHECK_CONTENT(sd, vdi, "first", 6, 0);
    CHECK_CONTENT(sd, clone, "clone", 6, 0);

    if (names_come_back(sd)) {
        OK(sd_vdi_close(&vdi));
        OK(sd_vdi_delete(sd, name));
        OK(sd_snapshot_rollback(sd, snapshot));
        OK(sd_vdi_open(sd, name, &vdi));
    }
    CHECK_CONTENT(sd, vdi, "first", 6, 0);
    OK(sd_vdi_write(sd, vdi, "fresh", 6, 0, 0));
    CHECK_CONTENT(sd, snapshot, "first", 6, 0);
    OK(sd_close(&sd));
}
