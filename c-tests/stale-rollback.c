/* Another client rolls a VDI back under its writer: what the writer writes afterwards is kept, on
 * the snapshot's content, whether it knew the objects as its own, as shared or as none. */
#include "support.h"

#include <string.h>

#define SIZE (5 * OBJECT)

static unsigned char model[SIZE], frozen[SIZE];

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, SIZE), seen = open_second(other, name), snapshot;

    write_both(writer, vdi, model, 0, 3 * OBJECT, 1);
    OK(sd_snapshot_create(other, seen, "tag", &snapshot));
    memcpy(frozen, model, SIZE);
    for (size_t first = 0; first < 5; first++) {
        /* Objects 0 and 3 become the VDI's own; 1 and 2 stay shared; 4 is none. */
        write_both(writer, vdi, model, 10, 1000, 10 + first);
        write_both(writer, vdi, model, 3 * OBJECT + 10, 1000, 20 + first);

        OK(sd_snapshot_rollback(other, snapshot));
        memcpy(model, frozen, SIZE);
        /* The writer's first write after it goes to each of them in turn. */
        write_both(writer, vdi, model, first * OBJECT + 500, 1000, 30 + first);
        CHECK_CONTENT(writer, vdi, model, SIZE, 0);
        OK(sd_vdi_refresh(other, seen));
        CHECK_CONTENT(other, seen, model, SIZE, 0);
        CHECK_CONTENT(other, snapshot, frozen, SIZE, 0);
    }

    /* A writer that only reads learns of it by a refresh. */
    OK(sd_snapshot_rollback(other, snapshot));
    OK(sd_vdi_refresh(writer, vdi));
    CHECK_CONTENT(writer, vdi, frozen, SIZE, 0);
    CHECK(count_snapshots(writer, name) == 1);
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
