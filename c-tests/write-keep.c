/* SD_WRITE_KEEP: zeros are written where there are objects, which stay; a hole stays one, and a
 * snapshot keeps what it has. sd_vdi_discard_ex() frees, and takes SD_WRITE_FUA alone. */
#include "support.h"

#include <string.h>

#define SIZE (5 * OBJECT + 600)

static unsigned char model[SIZE], frozen[SIZE];

static void zero(sd_t sd, sd_vdi_t vdi, size_t offset, size_t size, int flag)
{
    OK(sd_vdi_write_zeroes(sd, vdi, (off_t)offset, size, SD_WRITE_KEEP | flag));
    memset(model + offset, 0, size);
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
}

int main(void)
{
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), SIZE), snapshot;

    zero(sd, vdi, 0, SIZE, 0);
    CHECK(info_of(vdi).allocated == 0);
    write_both(sd, vdi, model, OBJECT, 3 * OBJECT, 1); /* 0 and 4 are holes */
    write_both(sd, vdi, model, SIZE - 600, 600, 2);
    CHECK(info_of(vdi).allocated == 4 * OBJECT);
    zero(sd, vdi, OBJECT - 100, OBJECT + 200, SD_WRITE_FUA);
    zero(sd, vdi, 0, SIZE, 0);
    CHECK(info_of(vdi).allocated == 4 * OBJECT);

    write_both(sd, vdi, model, 2 * OBJECT, OBJECT, 3);
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    memcpy(frozen, model, SIZE);
    zero(sd, vdi, 0, SIZE, SD_WRITE_FUA);
    CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);
    CHECK(info_of(vdi).allocated == 4 * OBJECT);

    OK(sd_vdi_discard_ex(sd, vdi, (off_t)OBJECT, OBJECT, SD_WRITE_FUA));
    OK(sd_vdi_discard_ex(sd, vdi, (off_t)OBJECT, 2 * OBJECT, 0));
    CHECK(info_of(vdi).allocated == 2 * OBJECT);
    CHECK_CONTENT(sd, vdi, NULL, SIZE, 0);
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_discard_ex(sd, vdi, 0, OBJECT, SD_WRITE_KEEP));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_discard_ex(sd, vdi, 0, OBJECT, SD_WRITE_NOCOPY));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_discard_ex(sd, vdi, (off_t)SIZE, 1, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, "x", 1, 0, SD_WRITE_KEEP));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write_zeroes(sd, vdi, 0, 1, SD_WRITE_NOCOPY));
    OK(sd_close(&sd));
}
