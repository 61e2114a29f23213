/* Another client resizes a VDI under its writer, which finds out when it writes: beyond the end it
 * knew, where it may now, and before it, where it no longer may; nothing comes back by regrowing. */
#include "support.h"

#include <string.h>

#define LARGE (6 * OBJECT)
#define SMALL (OBJECT + 1000)

static unsigned char model[LARGE];

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, SMALL), seen = open_second(other, name), snapshot;
    char byte;

    need_removals();
    write_both(writer, vdi, model, 0, SMALL, 1);
    OK(sd_vdi_resize(other, seen, LARGE));
    write_both(writer, vdi, model, SMALL - 10, 3 * OBJECT, 2);
    write_both(writer, vdi, model, LARGE - 100, 100, 3);
    CHECK_CONTENT(writer, vdi, model, LARGE, 0);

    /* A snapshot by a client that does not know the size keeps it. */
    OK(sd_vdi_refresh(other, seen));
    OK(sd_vdi_resize(writer, vdi, LARGE - 5));
    OK(sd_snapshot_create(other, seen, "tag", &snapshot));
    CHECK(info_of(snapshot).size == LARGE - 5 && info_of(vdi).size == LARGE - 5);
    CHECK_CONTENT(other, snapshot, model, LARGE - 5, 0);
    write_both(writer, vdi, model, 10, 10, 4);
    CHECK(info_of(vdi).size == LARGE - 5);

    for (int shared = 0; shared < 2; shared++) {
        /* Its own object, one that is shared, one that is not allocated. */
        OK(sd_vdi_resize(writer, vdi, LARGE));
        memset(model + LARGE - 5, 0, 5);
        write_both(writer, vdi, model, 2 * OBJECT, 100, 5);
        OK(sd_vdi_resize(other, seen, SMALL));
        memset(model + SMALL, 0, LARGE - SMALL);
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(writer, vdi, "x", 1, (off_t)(2 * OBJECT), 0));
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(writer, vdi, "x", 1, (off_t)(3 * OBJECT), 0));
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(writer, vdi, "x", 1, (off_t)(5 * OBJECT), 0));
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(writer, vdi, &byte, 1, (off_t)(4 * OBJECT)));
        OK(sd_vdi_resize(other, seen, LARGE));
        OK(sd_vdi_refresh(writer, vdi));
        CHECK_CONTENT(writer, vdi, model, LARGE, 0);
        CHECK_CONTENT(other, seen, model, LARGE, 0);
    }
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
