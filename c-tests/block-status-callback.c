/* The callback of sd_vdi_block_status may call the library, and ends the walk by a result other
 * than zero, which is no error. */
#include "support.h"

struct walk {
    sd_t sd;
    sd_vdi_t vdi;
    int calls, last;
};

static int visit(off_t offset, size_t size, int status, void *opaque)
{
    struct walk *walk = opaque;
    char byte;

    (void)size;
    OK(sd_vdi_read(walk->sd, walk->vdi, &byte, 1, offset));
    CHECK(byte == (status == SD_EXTENT_HOLE ? 0 : 'x'));
    if (status == SD_EXTENT_ALLOCATED)
        OK(sd_vdi_write(walk->sd, walk->vdi, "x", 1, offset + 1, 0));
    return ++walk->calls == walk->last ? -7 : 0;
}

int main(void)
{
    sd_t sd = connect_to_server();
    struct walk walk = { .sd = sd, .vdi = create_vdi(sd, vdi_name("a"), 6 * OBJECT) };

    for (size_t object = 1; object < 6; object += 2)
        OK(sd_vdi_write(sd, walk.vdi, "x", 1, (off_t)(object * OBJECT), 0));
    for (walk.last = 1; walk.last <= 6; walk.last++) {
        walk.calls = 0;
        OK(sd_vdi_block_status(sd, walk.vdi, 0, 6 * OBJECT, visit, &walk));
        CHECK(walk.calls == walk.last);
    }
    walk.calls = 0;
    OK(sd_vdi_block_status(sd, walk.vdi, 0, 6 * OBJECT, visit, &walk));
    CHECK(walk.calls == 6);
    OK(sd_close(&sd));
}
