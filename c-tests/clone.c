/* A clone begins as what the snapshot holds: made from a snapshot handle, and from a handle of the
 * VDI by tag and by id, opened at once or later. */
#include "support.h"

#include <string.h>

#define SIZE (3 * OBJECT + 777)

static unsigned char model[SIZE], frozen[SIZE];

static void is_the_clone(sd_t sd, const char *name, sd_vdi_t clone, uint32_t parent)
{
    struct sd_vdi_info info = info_of(clone);

    CHECK_STR(info.name, name);
    CHECK(!info.is_snapshot && info.size == SIZE && info.parent_vdi_id == parent);
    CHECK(info.copies >= 1);
    CHECK_CONTENT(sd, clone, frozen, SIZE, 0);
    OK(sd_vdi_write(sd, clone, "x", 1, (off_t)OBJECT - 1, 0));
    OK(sd_vdi_close(&clone));
}

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *clone_name;
    sd_vdi_t vdi = create_vdi(sd, name, SIZE), snapshot, clone;
    struct sd_list_iter iter;
    uint32_t id;
    int clones = 0, snap_id;

    write_both(sd, vdi, model, 1000, OBJECT, 1);
    write_both(sd, vdi, model, SIZE - 10, 10, 2);
    memcpy(frozen, model, SIZE);
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    id = info_of(snapshot).vdi_id;
    snap_id = (int)info_of(snapshot).snap_id;
    write_both(sd, vdi, model, 0, SIZE, 3); /* which is not cloned */

    clone_name = vdi_name("from-handle");
    OK(sd_vdi_clone(sd, snapshot, clone_name, NULL, 0, 0, &clone));
    is_the_clone(sd, clone_name, clone, id);
    clone_name = vdi_name("by-tag");
    OK(sd_vdi_clone(sd, vdi, clone_name, "tag", 0, 1, &clone));
    is_the_clone(sd, clone_name, clone, id);
    clone_name = vdi_name("by-id");
    OK(sd_vdi_clone(sd, vdi, clone_name, NULL, snap_id, 0, &clone));
    is_the_clone(sd, clone_name, clone, id);
    clone_name = vdi_name("by-id-empty-tag");
    OK(sd_vdi_clone(sd, vdi, clone_name, "", snap_id, 0, &clone));
    is_the_clone(sd, clone_name, clone, id);
    clone_name = vdi_name("later");
    OK(sd_vdi_clone(sd, vdi, clone_name, "tag", 0, 0, NULL));
    OK(sd_vdi_open(sd, clone_name, &clone));
    is_the_clone(sd, clone_name, clone, id);

    CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    CHECK(count_snapshots(sd, name) == 1 && count_snapshots(sd, clone_name) == 0);
    OK(sd_vdi_list(sd, &iter));
    while (iter.has_next())
        clones += strcmp(iter.next_string(), clone_name) == 0;
    iter.destory();
    CHECK(clones == 1);
    OK(sd_close(&sd));
}
