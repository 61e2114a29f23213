/* Discarding what a VDI shares with its snapshot gives zeros, not the snapshot's data, before and
 * after writing there again; the snapshot and a clone of it stay whole. */
#include "support.h"

#include <string.h>

#define SIZE (4 * OBJECT)

static unsigned char model[SIZE], frozen[SIZE];

static void check(sd_t sd, const char *name, sd_vdi_t vdi, sd_vdi_t clone)
{
    sd_vdi_t snapshot = open_snapshot(sd, name, "tag");

    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);
    CHECK_CONTENT(sd, clone, frozen, SIZE, 0);
    OK(sd_vdi_close(&snapshot));
}

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, SIZE), clone;

    write_both(sd, vdi, model, 0, SIZE, 1);
    OK(sd_snapshot_create(sd, vdi, "tag", NULL));
    OK(sd_vdi_clone(sd, vdi, vdi_name("clone"), "tag", 0, 0, &clone));
    memcpy(frozen, model, SIZE);
    write_both(sd, vdi, model, 0, 100, 2); /* the first object becomes its own */

    OK(sd_vdi_discard(sd, vdi, 0, 2 * OBJECT)); /* one of its own, one shared */
    memset(model, 0, 2 * OBJECT);
    check(sd, name, vdi, clone);
    OK(sd_vdi_discard(sd, vdi, 3 * OBJECT - 50, 100)); /* parts of two shared ones */
    memset(model + 3 * OBJECT - 50, 0, 100);
    check(sd, name, vdi, clone);

    write_both(sd, vdi, model, 10, 10, 3);
    write_both(sd, vdi, model, OBJECT + 10, 10, 4);
    check(sd, name, vdi, clone);
    OK(sd_vdi_discard(sd, vdi, 0, SIZE));
    memset(model, 0, SIZE);
    check(sd, name, vdi, clone);
    CHECK(info_of(vdi).allocated == 0);

    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_delete(sd, name));
    CHECK_CONTENT(sd, clone, frozen, SIZE, 0);
    OK(sd_vdi_discard(sd, clone, 0, OBJECT));
    OK(sd_snapshot_delete(sd, name, "tag", 0));
    memset(frozen, 0, OBJECT);
    CHECK_CONTENT(sd, clone, frozen, SIZE, 0);
    OK(sd_close(&sd));
}
