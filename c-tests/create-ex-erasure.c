/* An erasure-coded VDI (2:1) works like any other, unaligned writes, snapshots and discards
 * included. Needs a cluster of three nodes or more. */
#include "support.h"

#include <string.h>

#define SIZE (3 * OBJECT + 100)

static unsigned char model[SIZE], frozen[SIZE];

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    struct sd_create_opts options = { .ec_data = 2, .ec_parity = 1 };
    sd_vdi_t vdi, snapshot;
    int result = sd_vdi_create_ex(sd, name, SIZE, &options, sizeof options, &vdi);

    /* Servers take the VDI as it is, and notice at the first write that nodes are missing. */
    if (result == SD_RES_SUCCESS)
        result = sd_vdi_write(sd, vdi, "x", 1, 0, 0);
    if (result != SD_RES_SUCCESS && result != SD_RES_INVALID_PARMS)
        skip("too few nodes for an erasure code");
    OK(result);
    model[0] = 'x';
    CHECK(info_of(vdi).copy_policy == 0x11);

    write_both(sd, vdi, model, 1, 511, 1);
    write_both(sd, vdi, model, 700, 3, 2);
    write_both(sd, vdi, model, OBJECT - 777, OBJECT + 1000, 3);
    write_both(sd, vdi, model, SIZE - 100, 100, 4);
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    memcpy(frozen, model, SIZE);
    write_both(sd, vdi, model, 100, 1000, 5);
    OK(sd_vdi_discard(sd, vdi, (off_t)OBJECT, OBJECT + 10));
    memset(model + OBJECT, 0, OBJECT + 10);
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);
    CHECK(info_of(vdi).copy_policy == 0x11);

    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_open(sd, name, &vdi));
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    OK(sd_close(&sd));
}
