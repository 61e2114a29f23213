/* Rolling back and forth between snapshots, of different sizes too, gives each one's content and
 * size; none of them changes, and deleting them leaves the VDI whole. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

#define STATES 4
#define SIZE (5 * OBJECT)

int main(void)
{
    static const int order[] = { 1, 3, 0, 2, 2, 0, 3, 1 };
    static unsigned char model[SIZE];
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT), snapshots[STATES];
    unsigned char *kept[STATES];
    size_t sizes[STATES];

    for (int i = 0; i < STATES; i++) {
        char tag[16];

        sizes[i] = OBJECT + (size_t)i * (OBJECT + 1000);
        OK(sd_vdi_resize(sd, vdi, sizes[i]));
        write_both(sd, vdi, model, 500 * (size_t)i, 1000, (uint64_t)i);
        write_both(sd, vdi, model, sizes[i] - 300, 300, (uint64_t)i + 10);
        kept[i] = copy_of(model, sizes[i]);
        snprintf(tag, sizeof tag, "tag-%d", i);
        OK(sd_snapshot_create(sd, vdi, tag, &snapshots[i]));
    }
    for (size_t step = 0; step < sizeof order / sizeof *order; step++) {
        int to = order[step];

        OK(sd_snapshot_rollback(sd, snapshots[to]));
        CHECK(info_of(vdi).size == sizes[to]);
        CHECK_CONTENT(sd, vdi, kept[to], sizes[to], 0);
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, "x", 1, (off_t)sizes[to], 0));
        OK(sd_vdi_write(sd, vdi, "gone by the next rollback", 25, (off_t)step * 100, 0));
        for (int i = 0; i < STATES; i++)
            CHECK_CONTENT(sd, snapshots[i], kept[i], sizes[i], 0);
    }

    OK(sd_snapshot_rollback(sd, snapshots[2]));
    for (int i = 0; i < STATES; i++) {
        char tag[16];

        OK(sd_vdi_close(&snapshots[i]));
        snprintf(tag, sizeof tag, "tag-%d", i);
        OK(sd_snapshot_delete(sd, name, tag, 0));
        CHECK_CONTENT(sd, vdi, kept[2], sizes[2], 0);
    }
    for (int i = 0; i < STATES; i++)
        free(kept[i]);
    OK(sd_close(&sd));
}
