/* A hypervolume, larger than 4 TiB: written sparsely from end to end and in no order, and read back
 * by handles opened later. Deleting it works, or is SD_RES_NO_SUPPORT and does no harm. */
#include "support.h"

#include <string.h>

#define TiB ((size_t)1 << 40)
#define SIZE (9 * TiB + 1000)
#define PIECE 5000

int main(void)
{
    static const size_t offsets[] = {
        SIZE - PIECE, 0, 4 * TiB - 2500, 8 * TiB, 5 * OBJECT, OBJECT - 2500, 6 * TiB + 1, 4096,
    };
    const size_t count = sizeof offsets / sizeof *offsets;
    struct sd_create_opts options = { .hypervolume = true };
    const char *name = vdi_name("a");
    unsigned char data[PIECE];
    sd_t sd = connect_to_server(), other = connect_to_server();
    sd_vdi_t vdi, seen;
    int result = sd_vdi_create_ex(sd, name, SIZE, &options, sizeof options, &vdi);

    if (result == SD_RES_NO_SUPPORT)
        skip("the library does not create hypervolumes");
    OK(result);
    CHECK(info_of(vdi).size == SIZE && info_of(vdi).store_policy == 1);
    CHECK_CONTENT(sd, vdi, NULL, PIECE, 7 * TiB);
    for (size_t i = 0; i < count; i++) {
        fill(data, PIECE, i);
        OK(sd_vdi_write(sd, vdi, data, PIECE, (off_t)offsets[i], 0));
    }
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, data, PIECE, (off_t)SIZE, 0));
    for (int round = 0; round < 3; round++) {
        /* In turn: the handle that wrote, another one, another client. */
        if (round == 1) {
            OK(sd_vdi_close(&vdi));
            OK(sd_vdi_open(sd, name, &vdi));
        }
        seen = vdi;
        if (round == 2)
            seen = open_second(other, name);
        for (size_t i = 0; i < count; i++) {
            if (offsets[i] == 4096)
                continue;
            fill(data, PIECE, i);
            CHECK_CONTENT(round == 2 ? other : sd, seen, data, i == 1 ? 4096 : PIECE, offsets[i]);
        }
        fill(data, PIECE, count - 1);
        CHECK_CONTENT(round == 2 ? other : sd, seen, data, PIECE, 4096);
        CHECK_CONTENT(round == 2 ? other : sd, seen, NULL, PIECE, 8 * TiB + PIECE);
        CHECK_CONTENT(round == 2 ? other : sd, seen, NULL, PIECE, 3 * TiB);
    }
    OK(sd_close(&other));
    CHECK(info_of(vdi).allocated == 9 * OBJECT);
    FAILS(SD_RES_NO_SUPPORT, sd_snapshot_create(sd, vdi, "tag", NULL));
    CHECK(count_snapshots(sd, name) == 0);

    OK(sd_vdi_close(&vdi));
    result = sd_vdi_delete(sd, name);
    if (result == SD_RES_SUCCESS) {
        FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, name, &vdi));
    } else {
        FAILS(SD_RES_NO_SUPPORT, result);
        OK(sd_vdi_open(sd, name, &vdi));
        fill(data, PIECE, 0);
        CHECK_CONTENT(sd, vdi, data, PIECE, SIZE - PIECE);
    }
    OK(sd_close(&sd));
}
