/* sd_vdi_aclone() clones as sd_vdi_clone(): by tag, by handle, with a handle of the clone or
 * without. */
#include "async.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *by_tag = vdi_name("b"), *by_handle = vdi_name("c");
    static unsigned char model[2 * OBJECT];
    sd_vdi_t vdi = create_vdi(sd, name, sizeof model), snapshot, clone, none = NULL;

    write_both(sd, vdi, model, 100, OBJECT, 1);
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    OK(sd_vdi_write(sd, vdi, "changed", 8, 200, 0));
    OK(AWAIT(sd, sd_vdi_aclone(sd, vdi, by_tag, "tag", 0, 0, &clone, NOTED)));
    CHECK_CONTENT(sd, clone, model, sizeof model, 0);
    OK(sd_vdi_write(sd, clone, "changed", 8, 300, 0));
    CHECK_CONTENT(sd, snapshot, model, sizeof model, 0);
    OK(AWAIT(sd, sd_vdi_aclone(sd, snapshot, by_handle, NULL, 0, 0, NULL, NOTED)));
    OK(sd_vdi_open(sd, by_handle, &clone));
    CHECK_CONTENT(sd, clone, model, sizeof model, 0);

    FAILS(SD_RES_VDI_EXIST, AWAIT(sd, sd_vdi_aclone(sd, vdi, name, "tag", 0, 0, &none, NOTED)));
    FAILS(SD_RES_NO_TAG,
          AWAIT(sd, sd_vdi_aclone(sd, vdi, vdi_name("d"), "none", 0, 0, &none, NOTED)));
    FAILS(SD_RES_INVALID_PARMS,
          AWAIT(sd, sd_vdi_aclone(sd, vdi, vdi_name("e"), NULL, 0, 0, &none, NOTED)));
    CHECK(!none);
    OK(sd_close(&sd));
}
