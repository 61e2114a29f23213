/* Two clients take snapshots of one VDI in turn, the one that writes among them: each begins from
 * what is the working VDI then, and a tag that the other one took is in use. */
#include "support.h"

#include <stdio.h>

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, OBJECT), seen = open_second(other, name), snapshot;
    char tag[16], value[16] = "";

    for (int i = 0; i < 8; i++) {
        snprintf(value, sizeof value, "value %d", i);
        OK(sd_vdi_write(writer, vdi, value, sizeof value, 0, 0));
        snprintf(tag, sizeof tag, "tag-%d", i);
        if (i % 3 == 1)
            OK(sd_snapshot_create(writer, vdi, tag, NULL));
        else
            OK(sd_snapshot_create(other, seen, tag, NULL));
        FAILS(SD_RES_VDI_EXIST, sd_snapshot_create(other, seen, tag, NULL));
        FAILS(SD_RES_VDI_EXIST, sd_snapshot_create(writer, vdi, tag, NULL));
    }
    CHECK(count_snapshots(writer, name) == 8);
    for (int i = 0; i < 8; i++) {
        snprintf(tag, sizeof tag, "tag-%d", i);
        snprintf(value, sizeof value, "value %d", i);
        snapshot = open_snapshot(writer, name, tag);
        CHECK_CONTENT(writer, snapshot, value, sizeof value, 0);
        OK(sd_vdi_close(&snapshot));
    }
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
