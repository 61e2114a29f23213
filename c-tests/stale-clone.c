/* Another client clones and deletes the snapshots of a VDI under its writer: the VDI and the clones
 * keep what they held. */
#include "support.h"

#include <stdio.h>
#include <string.h>

#define ROUNDS 6
#define SIZE (3 * OBJECT)

static unsigned char model[SIZE], kept[ROUNDS][SIZE];

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, SIZE), seen = open_second(other, name);
    sd_vdi_t clones[ROUNDS];

    write_both(writer, vdi, model, 0, 2 * OBJECT, 1);
    for (int i = 0; i < ROUNDS; i++) {
        char tag[16], clone_name[16];

        snprintf(tag, sizeof tag, "tag-%d", i);
        snprintf(clone_name, sizeof clone_name, "clone-%d", i);
        write_both(writer, vdi, model, (size_t)(i % 3) * OBJECT + 10, 500, (uint64_t)i + 10);
        memcpy(kept[i], model, SIZE);
        OK(sd_snapshot_create(other, seen, tag, NULL));
        OK(sd_vdi_clone(other, seen, vdi_name(clone_name), tag, 0, 0, &clones[i]));
        write_both(other, clones[i], kept[i], OBJECT + 2000, 500, (uint64_t)i + 20);
        if (i % 2)
            write_both(writer, vdi, model, (size_t)(i % 3) * OBJECT + 5, 500, (uint64_t)i + 30);
        OK(sd_snapshot_delete(other, name, tag, 0));
        CHECK_CONTENT(writer, vdi, model, SIZE, 0);
    }
    for (int i = 0; i < ROUNDS; i++)
        CHECK_CONTENT(other, clones[i], kept[i], SIZE, 0);
    CHECK(count_snapshots(writer, name) == 0);
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
