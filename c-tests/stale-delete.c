/* Another client deletes a VDI under its writer: writes fail rather than going nowhere, nothing
 * brings the VDI back, and one created anew under the name stays as it is. */
#include "support.h"

#define SIZE (4 * OBJECT)

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, SIZE), again;

    need_removals();
    OK(sd_vdi_write(writer, vdi, "data", 4, 0, 0));
    OK(sd_vdi_write(writer, vdi, "data", 4, (off_t)OBJECT, 0));
    OK(sd_snapshot_create(writer, vdi, "tag", NULL));
    OK(sd_vdi_write(writer, vdi, "own", 3, 0, 0));
    OK(sd_vdi_delete(other, name));

    for (size_t object = 0; object < 3; object++) { /* its own, a shared one, none */
        int result = sd_vdi_write(writer, vdi, "x", 1, (off_t)(object * OBJECT), 0);

        if (result != SD_RES_NO_VDI && result != SD_RES_EIO)
            fail(__FILE__, __LINE__, "a write to object %zu of a deleted VDI gave %s: %s", object,
                 sd_strerror(result), sd_last_error());
    }
    CHECK(sd_vdi_resize(writer, vdi, 2 * SIZE) != SD_RES_SUCCESS);
    CHECK(sd_vdi_discard(writer, vdi, 0, SIZE) != SD_RES_SUCCESS);
    CHECK(sd_vdi_refresh(writer, vdi) != SD_RES_SUCCESS);
    CHECK(sd_snapshot_create(writer, vdi, "late", NULL) != SD_RES_SUCCESS);
    FAILS(SD_RES_NO_VDI, sd_vdi_open(other, name, &again));
    CHECK(count_snapshots(other, name) == 1);

    again = create_vdi(other, name, SIZE);
    OK(sd_vdi_write(other, again, "fresh", 5, 0, 0));
    sd_vdi_close(&vdi);
    CHECK(vdi == NULL);
    CHECK_CONTENT(other, again, "fresh", 5, 0);
    CHECK_CONTENT(other, again, NULL, SIZE - 5, 5);
    OK(sd_vdi_close(&again));
    again = open_snapshot(other, name, "tag");
    CHECK_CONTENT(other, again, "data", 4, 0);
    CHECK_CONTENT(other, again, "data", 4, OBJECT);
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
