/* A snapshot keeps its size and content when the VDI is resized; shrinking and growing again gives
 * zeros, not what the snapshot holds there. */
#include "support.h"

#include <string.h>

#define SIZE (4 * OBJECT + 500)

static unsigned char model[6 * OBJECT], frozen[SIZE];

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, SIZE), snapshot, small;

    write_both(sd, vdi, model, 0, SIZE, 1);
    memcpy(frozen, model, SIZE);
    OK(sd_snapshot_create(sd, vdi, "large", &snapshot));
    write_both(sd, vdi, model, 3 * OBJECT, OBJECT, 2); /* of its own, beside the shared ones */

    OK(sd_vdi_resize(sd, vdi, OBJECT + 100));
    OK(sd_snapshot_create(sd, vdi, "small", &small));
    CHECK(info_of(snapshot).size == SIZE && info_of(small).size == OBJECT + 100);
    CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);
    CHECK_CONTENT(sd, small, model, OBJECT + 100, 0);

    OK(sd_vdi_resize(sd, vdi, 6 * OBJECT));
    memset(model + OBJECT + 100, 0, 5 * OBJECT - 100);
    CHECK_CONTENT(sd, vdi, model, 6 * OBJECT, 0);
    write_both(sd, vdi, model, 2 * OBJECT - 10, 20, 3);
    write_both(sd, vdi, model, 5 * OBJECT, 20, 4);
    CHECK_CONTENT(sd, vdi, model, 6 * OBJECT, 0);
    CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);
    CHECK_CONTENT(sd, small, frozen, OBJECT + 100, 0);

    OK(sd_snapshot_rollback(sd, small));
    CHECK(info_of(vdi).size == OBJECT + 100);
    CHECK_CONTENT(sd, vdi, frozen, OBJECT + 100, 0);
    OK(sd_vdi_resize(sd, vdi, SIZE));
    CHECK_CONTENT(sd, vdi, NULL, SIZE - OBJECT - 100, OBJECT + 100);
    OK(sd_snapshot_rollback(sd, snapshot));
    CHECK_CONTENT(sd, vdi, frozen, SIZE, 0);

    OK(sd_vdi_close(&snapshot));
    OK(sd_snapshot_delete(sd, name, "large", 0));
    CHECK_CONTENT(sd, vdi, frozen, SIZE, 0);
    CHECK_CONTENT(sd, small, frozen, OBJECT + 100, 0);
    OK(sd_close(&sd));
}
