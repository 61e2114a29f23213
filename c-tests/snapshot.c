/* A snapshot keeps what the VDI held when it was taken, while the VDI goes on: overwritten, newly
 * allocated and untouched objects, seen by the handle that creating gave, by tag and by id. */
#include "support.h"

#include <string.h>

#define SIZE (5 * OBJECT + 12345)

static unsigned char model[SIZE], frozen[SIZE];

static void is_the_snapshot(sd_t sd, sd_vdi_t snapshot)
{
    unsigned char part[1000];

    CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);
    OK(sd_snapshot_read(sd, snapshot, part, sizeof part, (off_t)OBJECT - 500));
    CHECK_BYTES(part, frozen + OBJECT - 500, sizeof part);
    OK(sd_vdi_close(&snapshot));
}

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, SIZE), snapshot, by_tag, by_id;
    struct sd_vdi_info before = info_of(vdi), info;

    write_both(sd, vdi, model, 0, 2 * OBJECT, 1);
    write_both(sd, vdi, model, SIZE - 1000, 1000, 2);
    memcpy(frozen, model, SIZE);
    OK(sd_snapshot_create(sd, vdi, "first", &snapshot));

    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    write_both(sd, vdi, model, 0, OBJECT, 3);                   /* a whole object */
    write_both(sd, vdi, model, OBJECT + 100, 3000, 4);          /* a part of one */
    write_both(sd, vdi, model, 3 * OBJECT - 100, 200, 5);       /* in objects that were not there */
    write_both(sd, vdi, model, SIZE - 10, 10, 6);
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);

    info = info_of(snapshot);
    CHECK(info.is_snapshot && info.vdi_id == before.vdi_id && info.size == SIZE);
    CHECK(info.snap_time_ns >= info.create_time_ns);
    CHECK_STR(info.name, name);
    CHECK_STR(info.tag, "first");
    CHECK(!info_of(vdi).is_snapshot && info_of(vdi).parent_vdi_id == info.vdi_id);
    CHECK_STR(info_of(vdi).tag, "");

    by_tag = open_snapshot(sd, name, "first");
    OK(sd_snapshot_open(sd, name, NULL, (int)info.snap_id, &by_id));
    CHECK(info_of(by_tag).vdi_id == info.vdi_id && info_of(by_id).vdi_id == info.vdi_id);
    is_the_snapshot(sd, snapshot);
    is_the_snapshot(sd, by_tag);
    is_the_snapshot(sd, by_id);
    OK(sd_snapshot_open(sd, name, "", (int)info.snap_id, &by_id)); /* an empty tag is none */
    is_the_snapshot(sd, by_id);

    OK(sd_vdi_close(&vdi));
    OK(sd_close(&sd));
    sd = connect_to_server();
    is_the_snapshot(sd, open_snapshot(sd, name, "first"));
    OK(sd_vdi_open(sd, name, &vdi));
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    OK(sd_close(&sd));
}
