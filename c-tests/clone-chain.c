/* Clones of snapshots of clones: every generation keeps its own content while later ones write, and
 * the youngest survives all of its ancestors. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

#define GENERATIONS 6
#define SIZE (3 * OBJECT)

int main(void)
{
    static unsigned char model[SIZE];
    sd_t sd = connect_to_server();
    const char *names[GENERATIONS];
    unsigned char *kept[GENERATIONS];
    sd_vdi_t vdi, clone, snapshot;

    names[0] = vdi_name("0");
    vdi = create_vdi(sd, names[0], SIZE);
    write_both(sd, vdi, model, 0, 2 * OBJECT, 100);
    for (int i = 0;; i++) {
        char suffix[16];

        write_both(sd, vdi, model, (size_t)i * 700000, 5000, (uint64_t)i);
        kept[i] = copy_of(model, SIZE);
        if (i == GENERATIONS - 1)
            break;
        OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
        snprintf(suffix, sizeof suffix, "%d", i + 1);
        names[i + 1] = vdi_name(suffix);
        OK(sd_vdi_clone(sd, snapshot, names[i + 1], NULL, 0, 0, &clone));
        OK(sd_vdi_close(&snapshot));
        OK(sd_vdi_close(&vdi));
        vdi = clone;
    }
    OK(sd_vdi_close(&vdi));

    for (int deleted = 0; deleted < GENERATIONS; deleted++) {
        for (int i = deleted; i < GENERATIONS; i++) {
            OK(sd_vdi_open(sd, names[i], &vdi));
            CHECK_CONTENT(sd, vdi, kept[i], SIZE, 0);
            OK(sd_vdi_close(&vdi));
            if (i == GENERATIONS - 1)
                continue;
            snapshot = open_snapshot(sd, names[i], "tag");
            CHECK_CONTENT(sd, snapshot, kept[i], SIZE, 0);
            OK(sd_vdi_close(&snapshot));
        }
        OK(sd_vdi_delete(sd, names[deleted]));
        if (deleted < GENERATIONS - 1)
            OK(sd_snapshot_delete(sd, names[deleted], "tag", 0));
        free(kept[deleted]);
    }
    OK(sd_close(&sd));
}
