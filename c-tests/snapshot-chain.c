/* Snapshots of snapshots: each of a long chain keeps its own state, through several handles and
 * for a new connection. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH 12
#define SIZE (3 * OBJECT)

static unsigned char model[SIZE], *kept[LENGTH];

static const char *tag(int i)
{
    static char text[16];

    snprintf(text, sizeof text, "tag-%d", i);
    return text;
}

static void check_all(sd_t sd, const char *name, sd_vdi_t vdi, int count)
{
    uint32_t parent = info_of(vdi).parent_vdi_id;

    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    for (int i = count; i-- > 0;) {
        sd_vdi_t snapshot = open_snapshot(sd, name, tag(i));

        CHECK_CONTENT(sd, snapshot, kept[i], SIZE, 0);
        CHECK(info_of(snapshot).vdi_id == parent);
        parent = info_of(snapshot).parent_vdi_id;
        OK(sd_vdi_close(&snapshot));
    }
    CHECK(parent == 0);
}

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, SIZE);

    for (int i = 0; i < LENGTH; i++) {
        /* Some objects stay shared over several snapshots, some never are. */
        write_both(sd, vdi, model, (size_t)i * 1000, 1500, (uint64_t)i);
        if (i % 3 == 0)
            write_both(sd, vdi, model, OBJECT + (size_t)i * 100, 50, (uint64_t)i);
        if (i == LENGTH / 2)
            write_both(sd, vdi, model, 2 * OBJECT, OBJECT, (uint64_t)i);
        kept[i] = copy_of(model, SIZE);
        OK(sd_snapshot_create(sd, vdi, tag(i), NULL));
    }
    write_both(sd, vdi, model, SIZE / 2, SIZE / 2, 99);
    check_all(sd, name, vdi, LENGTH);
    OK(sd_close(&sd));

    sd = connect_to_server();
    OK(sd_vdi_open(sd, name, &vdi));
    check_all(sd, name, vdi, LENGTH);
    OK(sd_close(&sd));
    for (int i = 0; i < LENGTH; i++)
        free(kept[i]);
}
