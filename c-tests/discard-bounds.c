/* A discard that leaves the VDI is SD_RES_INVALID_PARMS and discards nothing. */
#include "support.h"

#include <limits.h>

#define SIZE (2 * OBJECT + 10)

static unsigned char model[SIZE];

int main(void)
{
    static const struct { off_t offset; size_t size; } outside[] = {
        { 0, SIZE + 1 }, { OBJECT, OBJECT + 11 }, { SIZE, 1 }, { SIZE + 1, 0 }, { -1, 1 },
        { -1, 0 }, { 1, SIZE_MAX }, { INT64_MAX, 1 }, { INT64_MAX, SIZE_MAX }, { INT64_MIN, 0 },
    };
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), SIZE);

    write_both(sd, vdi, model, 0, SIZE, 1);
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        off_t offset = outside[i].offset;
        size_t size = outside[i].size;

        FAILS(SD_RES_INVALID_PARMS, sd_vdi_discard(sd, vdi, offset, size));
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_write_zeroes(sd, vdi, offset, size, 0));
    }
    OK(sd_vdi_discard(sd, vdi, SIZE, 0));
    OK(sd_vdi_write_zeroes(sd, vdi, SIZE, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write_zeroes(sd, vdi, 0, 1, 0x4000));
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    OK(sd_close(&sd));
}
