/* One client takes snapshots of a VDI that another one writes to, in turn: no write that returned
 * is lost, none lands in a snapshot, whatever the writer knows of the objects it writes to. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

#define ROUNDS 12
#define SIZE (4 * OBJECT)

static unsigned char model[SIZE], *kept[ROUNDS];

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, SIZE), seen = open_second(other, name), snapshot;
    char tag[16];

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t seed = (uint64_t)i * 10;

        /* The writer's own objects, shared ones and new ones come first in turn. */
        if (i % 3 == 0)
            write_both(writer, vdi, model, 100 * (size_t)i, 150, seed);
        if (i % 3 == 1)
            write_both(writer, vdi, model, 3 * OBJECT + 100 * (size_t)i, 150, seed + 1);
        write_both(writer, vdi, model, (size_t)(i % 4) * OBJECT + 77777, 1000, seed + 2);
        if (i % 2)
            write_both(writer, vdi, model, OBJECT - 500, 2 * OBJECT, seed + 3);
        kept[i] = copy_of(model, SIZE);
        snprintf(tag, sizeof tag, "tag-%d", i);
        OK(sd_snapshot_create(other, seen, tag, NULL));
        if (i % 4 == 3)
            CHECK_CONTENT(writer, vdi, model, SIZE, 0);
        if (i % 4 == 2)
            write_both(writer, vdi, model, 0, SIZE, seed + 4);
    }
    write_both(writer, vdi, model, SIZE - 100, 100, 1000);
    CHECK_CONTENT(writer, vdi, model, SIZE, 0);
    OK(sd_vdi_refresh(other, seen));
    CHECK_CONTENT(other, seen, model, SIZE, 0);
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(tag, sizeof tag, "tag-%d", i);
        snapshot = open_snapshot(other, name, tag);
        CHECK_CONTENT(other, snapshot, kept[i], SIZE, 0);
        OK(sd_vdi_close(&snapshot));
        free(kept[i]);
    }
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
