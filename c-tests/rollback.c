/* A rollback gives the working VDI the snapshot's content: open handles go on with it, read and
 * write it, the snapshot stays as it is, and it can be repeated. */
#include "support.h"

#include <string.h>

#define SIZE (4 * OBJECT + 99)

static unsigned char model[SIZE], frozen[SIZE];

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, SIZE), second, snapshot;

    write_both(sd, vdi, model, 0, 2 * OBJECT, 1);
    OK(sd_vdi_open(sd, name, &second));
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    memcpy(frozen, model, SIZE);

    for (int round = 0; round < 3; round++) {
        uint64_t seed = 10 * (uint64_t)round + 10;

        write_both(sd, vdi, model, 0, OBJECT, seed);
        write_both(sd, second, model, OBJECT + 77, 1000, seed + 1);
        write_both(sd, vdi, model, 3 * OBJECT - 5, 10, seed + 2); /* where there was nothing */
        CHECK_CONTENT(sd, vdi, model, SIZE, 0);
        CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);

        OK(sd_snapshot_rollback(sd, snapshot));
        memcpy(model, frozen, SIZE);
        CHECK_CONTENT(sd, vdi, model, SIZE, 0);
        CHECK_CONTENT(sd, second, model, SIZE, 0);
        CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);
        CHECK(!info_of(vdi).is_snapshot && count_snapshots(sd, name) == 1);
    }
    write_both(sd, second, model, SIZE - OBJECT, OBJECT, 99);
    write_both(sd, vdi, model, 10, 10, 98);
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);

    /* And for everybody else. */
    OK(sd_close(&sd));
    sd = connect_to_server();
    OK(sd_vdi_open(sd, name, &vdi));
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    snapshot = open_snapshot(sd, name, "tag");
    CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);
    OK(sd_close(&sd));
}
