/* Whatever would change a snapshot is SD_RES_READONLY and changes nothing; what reads works. */
#include "support.h"

#include <string.h>
#include <sys/uio.h>

#define SIZE (2 * OBJECT)

static unsigned char model[SIZE];

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, SIZE), snapshot, opened;
    struct iovec vector = { .iov_base = "x", .iov_len = 1 };
    char got[2];

    write_both(sd, vdi, model, 0, OBJECT, 1);
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    opened = open_snapshot(sd, name, "tag");
    for (int i = 0; i < 2; i++) {
        sd_vdi_t handle = i ? opened : snapshot;

        FAILS(SD_RES_READONLY, sd_vdi_write(sd, handle, "x", 1, 0, 0));
        FAILS(SD_RES_READONLY, sd_vdi_write(sd, handle, "x", 1, (off_t)OBJECT, 0));
        FAILS(SD_RES_READONLY, sd_vdi_writev(sd, handle, &vector, 1, 0, 0));
        FAILS(SD_RES_READONLY, sd_vdi_write_zeroes(sd, handle, 0, OBJECT, 0));
        FAILS(SD_RES_READONLY, sd_vdi_discard(sd, handle, 0, OBJECT));
        FAILS(SD_RES_READONLY, sd_vdi_resize(sd, handle, 2 * SIZE));
        FAILS(SD_RES_READONLY, sd_snapshot_create(sd, handle, "other", NULL));

        CHECK_CONTENT(sd, handle, model, SIZE, 0);
        vector.iov_base = got;
        OK(sd_vdi_readv(sd, handle, &vector, 1, 5));
        CHECK_BYTES(got, model + 5, 1);
        OK(sd_vdi_flush(sd, handle));
        OK(sd_vdi_refresh(sd, handle));
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, handle, got, 2, (off_t)SIZE - 1));
        FAILS(SD_RES_INVALID_PARMS, sd_snapshot_read(sd, handle, got, 2, (off_t)SIZE - 1));
        CHECK(info_of(handle).size == SIZE);
    }
    CHECK(count_snapshots(sd, name) == 1);
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0)); /* the VDI itself is writable as ever */
    OK(sd_close(&sd));
}
