/* A clone and its parent do not see each other's writes and discards, and each is whole when the
 * other one and the snapshot between them are deleted. */
#include "support.h"

#include <string.h>

#define SIZE (4 * OBJECT)

static unsigned char parent[SIZE], frozen[SIZE], child[SIZE];

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("parent"), *clone_name = vdi_name("clone");
    sd_vdi_t vdi = create_vdi(sd, name, SIZE), clone, snapshot;

    write_both(sd, vdi, parent, 0, 3 * OBJECT, 1);
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    OK(sd_vdi_clone(sd, snapshot, clone_name, NULL, 0, 0, &clone));
    memcpy(frozen, parent, SIZE);
    memcpy(child, parent, SIZE);

    write_both(sd, clone, child, 500, 1000, 2);
    write_both(sd, vdi, parent, 900, 1000, 3);
    write_both(sd, clone, child, 3 * OBJECT, 10, 4);
    write_both(sd, vdi, parent, 3 * OBJECT + 5, 10, 5);
    OK(sd_vdi_discard(sd, clone, (off_t)OBJECT, OBJECT));
    memset(child + OBJECT, 0, OBJECT);
    OK(sd_vdi_discard(sd, vdi, (off_t)(2 * OBJECT), OBJECT));
    memset(parent + 2 * OBJECT, 0, OBJECT);
    CHECK_CONTENT(sd, vdi, parent, SIZE, 0);
    CHECK_CONTENT(sd, clone, child, SIZE, 0);
    CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);

    OK(sd_vdi_close(&snapshot));
    OK(sd_snapshot_delete(sd, name, "tag", 0));
    CHECK_CONTENT(sd, vdi, parent, SIZE, 0);
    CHECK_CONTENT(sd, clone, child, SIZE, 0);
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_delete(sd, name));
    CHECK_CONTENT(sd, clone, child, SIZE, 0);
    write_both(sd, clone, child, OBJECT - 50, 2 * OBJECT, 6);
    CHECK_CONTENT(sd, clone, child, SIZE, 0);
    OK(sd_close(&sd));
}
