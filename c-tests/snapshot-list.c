/* sd_snapshot_list gives the snapshots of one VDI in the order of their ids, with handles that work
 * until the iterator is destroyed; the working VDI and other VDIs are not in it. */
#include "support.h"

#include <stdio.h>
#include <string.h>

static void lists(sd_t sd, const char *name, int count, const char *const tags[])
{
    struct sd_list_iter iter;
    uint32_t last = 0;

    OK(sd_snapshot_list(sd, name, &iter));
    for (int i = 0; i < count; i++) {
        sd_vdi_t *snapshot;
        struct sd_vdi_info info;
        char content;

        CHECK(iter.has_next());
        CHECK(iter.has_next()); /* which takes nothing */
        snapshot = iter.next_snapshot();
        CHECK(snapshot);
        info = info_of(*snapshot);
        CHECK_STR(info.name, name);
        CHECK_STR(info.tag, tags[i]);
        CHECK(info.is_snapshot && info.snap_id > last);
        OK(sd_snapshot_read(sd, *snapshot, &content, 1, 0));
        CHECK(content == tags[i][0]);
        last = info.snap_id;
    }
    CHECK(!iter.has_next());
    CHECK(!iter.next_snapshot());
    iter.destory();
}

int main(void)
{
    static const char *const tags[] = { "zebra", "ape", "monkey", "bee" };
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *other_name = vdi_name("b");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT), other = create_vdi(sd, other_name, OBJECT), clone;
    struct sd_list_iter iter = { .opaqe = &sd };

    lists(sd, name, 0, tags);
    for (int i = 0; i < 4; i++) {
        OK(sd_vdi_write(sd, vdi, tags[i], 1, 0, 0));
        OK(sd_snapshot_create(sd, vdi, tags[i], NULL));
        lists(sd, name, i + 1, tags);
    }
    lists(sd, other_name, 0, tags);
    OK(sd_snapshot_create(sd, other, "other", NULL));
    OK(sd_vdi_clone(sd, vdi, vdi_name("clone"), "ape", 0, 0, &clone));
    OK(sd_snapshot_create(sd, clone, "of the clone", NULL));
    lists(sd, name, 4, tags);

    OK(sd_snapshot_delete(sd, name, "zebra", 0));
    lists(sd, name, 3, tags + 1);

    /* The snapshots outlive the working VDI, and a new one of the same name. */
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_delete(sd, name));
    lists(sd, name, 3, tags + 1);
    if (names_come_back(sd)) {
        vdi = create_vdi(sd, name, OBJECT);
        lists(sd, name, 3, tags + 1);
    }

    FAILS(SD_RES_NO_VDI, sd_snapshot_list(sd, vdi_name("missing"), &iter));
    CHECK(iter.opaqe == &sd);
    OK(sd_close(&sd));
}
