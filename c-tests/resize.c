/* A VDI grows and shrinks: new bytes are zeros, what was cut off does not come back, all handles
 * know the new size, and it lasts. */
#include "support.h"

#include <string.h>

#define MOST (6 * OBJECT)

static unsigned char model[MOST];

static void resize(sd_t sd, sd_vdi_t vdi, sd_vdi_t other, size_t from, size_t to)
{
    char byte;

    OK(sd_vdi_resize(sd, vdi, to));
    if (to < from)
        memset(model + to, 0, from - to);
    for (int i = 0; i < 2; i++) {
        sd_vdi_t handle = i ? other : vdi;

        CHECK(info_of(handle).size == to);
        CHECK_CONTENT(sd, handle, model, to, 0);
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, handle, &byte, 1, (off_t)to));
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, handle, "x", 1, (off_t)to, 0));
    }
}

int main(void)
{
    /* Grown by less than an object, over objects; shrunk inside one, to a border, to next to
     * nothing; and regrown after each. */
    static const size_t sizes[] = {
        OBJECT + 1000, OBJECT + 5000, 2 * OBJECT, 5 * OBJECT + 77, 5 * OBJECT + 77, 5 * OBJECT,
        4 * OBJECT + 10, MOST, 3 * OBJECT, 4 * OBJECT, 1, OBJECT, MOST,
    };
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, sizes[0]), other;
    size_t count = sizeof sizes / sizeof *sizes;

    OK(sd_vdi_open(sd, name, &other));
    for (size_t i = 0; i < count; i++) {
        if (i)
            resize(sd, vdi, other, sizes[i - 1], sizes[i]);
        /* Everything is allocated every other time, else only the last byte. */
        if (i % 2 == 0)
            write_both(sd, vdi, model, 0, sizes[i], i);
        write_both(sd, other, model, sizes[i] - 1, 1, 100 + i);
    }
    OK(sd_close(&sd));
    sd = connect_to_server();
    OK(sd_vdi_open(sd, name, &vdi));
    CHECK(info_of(vdi).size == MOST);
    CHECK_CONTENT(sd, vdi, model, MOST, 0);
    OK(sd_close(&sd));
}
