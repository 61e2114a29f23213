/* What is discarded or cut off in a hypervolume is freed, reads as zeros, and can be written again;
 * sizes that no hypervolume can have are refused. */
#include "support.h"

#define TiB ((size_t)1 << 40)
#define SIZE (8 * TiB)
#define COUNT 40
#define LENGTH 5000
#define PART (SIZE / OBJECT / COUNT)

static void check_all(sd_t sd, sd_vdi_t vdi, const size_t *offsets)
{
    unsigned char want[LENGTH], got[LENGTH];

    for (size_t i = 0; i < COUNT; i++) {
        fill(want, sizeof want, i);
        OK(sd_vdi_read(sd, vdi, got, sizeof got, (off_t)offsets[i]));
        CHECK_BYTES(got, want, sizeof got);
    }
}

int main(void)
{
    struct sd_create_opts options = { .hypervolume = true };
    struct sd_vdi_info info;
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    unsigned char data[LENGTH];
    size_t offsets[COUNT];
    uint64_t state = 1;
    sd_vdi_t vdi, snapshot;

    OK(sd_vdi_create_ex(sd, name, SIZE, &options, sizeof options, &vdi));
    /* One lies across the border of the last two objects. */
    offsets[0] = SIZE - OBJECT - LENGTH / 2;
    offsets[1] = 0;
    for (size_t i = 2; i < COUNT; i++) /* each in a part of the VDI of its own */
        offsets[i] = (PART * i + next_random(&state) % (PART - 1)) * OBJECT + i;
    for (size_t i = 0; i < COUNT; i++) {
        size_t turned = i * 7 % COUNT;
        fill(data, sizeof data, turned);
        OK(sd_vdi_write(sd, vdi, data, sizeof data, (off_t)offsets[turned], 0));
    }
    check_all(sd, vdi, offsets);
    OK(sd_vdi_close(&vdi));

    OK(sd_vdi_open(sd, name, &vdi));
    check_all(sd, vdi, offsets);
    OK(sd_vdi_read(sd, vdi, data, sizeof data, (off_t)(SIZE - sizeof data)));
    CHECK_ZERO(data, sizeof data);
    OK(sd_vdi_get_info(vdi, &info, sizeof info));
    CHECK(info.size == SIZE && info.store_policy == 1 && info.object_size == OBJECT);
    CHECK(info.allocated == (COUNT + 1) * OBJECT);
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, data, 1, (off_t)SIZE));

    OK(sd_vdi_discard(sd, vdi, (off_t)offsets[1], OBJECT));
    OK(sd_vdi_read(sd, vdi, data, sizeof data, (off_t)offsets[1]));
    CHECK_ZERO(data, sizeof data);
    fill(data, sizeof data, 1);
    OK(sd_vdi_write(sd, vdi, data, sizeof data, (off_t)offsets[1], 0));
    check_all(sd, vdi, offsets);

    OK(sd_vdi_resize(sd, vdi, TiB));
    OK(sd_vdi_resize(sd, vdi, 2 * SIZE));
    OK(sd_vdi_read(sd, vdi, data, sizeof data, (off_t)offsets[0]));
    CHECK_ZERO(data, sizeof data);
    for (size_t i = 0; i < COUNT; i++) {
        fill(data, sizeof data, i);
        OK(sd_vdi_write(sd, vdi, data, sizeof data, (off_t)offsets[i], 0));
    }
    check_all(sd, vdi, offsets);

    /* Servers do not count who shares its objects. */
    FAILS(SD_RES_NO_SUPPORT, sd_snapshot_create(sd, vdi, "tag", &snapshot));
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_delete(sd, name));
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, name, &vdi));

    options.object_size = 2 * OBJECT;
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create_ex(sd, name, SIZE, &options, sizeof options, NULL));
    options.object_size = OBJECT;
    FAILS(SD_RES_INVALID_PARMS,
          sd_vdi_create_ex(sd, name, ((size_t)1 << 54) + 1, &options, sizeof options, NULL));
    OK(sd_close(&sd));
}
