/* A clone that is resized to more than its parent reads as zeros there, takes writes there, and
 * leaves the parent's size alone; a shrunk one as well. */
#include "support.h"

#include <string.h>

#define SIZE (2 * OBJECT - 1000)
#define GROWN (5 * OBJECT + 1)

static unsigned char parent[SIZE], child[GROWN];

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("parent");
    sd_vdi_t vdi = create_vdi(sd, name, SIZE), clone, snapshot;

    write_both(sd, vdi, parent, 0, SIZE, 1);
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    OK(sd_vdi_clone(sd, snapshot, vdi_name("grown"), NULL, 0, 0, &clone));
    OK(sd_vdi_resize(sd, clone, GROWN));
    memcpy(child, parent, SIZE);
    CHECK_CONTENT(sd, clone, child, GROWN, 0);
    write_both(sd, clone, child, SIZE - 500, 1000, 2);
    write_both(sd, clone, child, GROWN - OBJECT, OBJECT, 3);
    CHECK_CONTENT(sd, clone, child, GROWN, 0);
    CHECK(info_of(clone).size == GROWN);

    OK(sd_vdi_close(&clone));
    OK(sd_vdi_clone(sd, snapshot, vdi_name("shrunk"), NULL, 0, 0, &clone));
    OK(sd_vdi_resize(sd, clone, OBJECT / 2));
    OK(sd_vdi_resize(sd, clone, SIZE));
    memcpy(child, parent, OBJECT / 2);
    memset(child + OBJECT / 2, 0, SIZE - OBJECT / 2);
    CHECK_CONTENT(sd, clone, child, SIZE, 0);

    CHECK(info_of(vdi).size == SIZE && info_of(snapshot).size == SIZE);
    CHECK_CONTENT(sd, vdi, parent, SIZE, 0);
    CHECK_CONTENT(sd, snapshot, parent, SIZE, 0);
    OK(sd_close(&sd));
}
