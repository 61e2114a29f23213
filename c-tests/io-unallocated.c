/* What was never written reads as zeros: around a write, in an object beside it, at the end. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    size_t size = 3 * OBJECT + 777;
    unsigned char *got = poisoned(size), *want = calloc(1, size);
    struct sd_vdi_info info;
    sd_vdi_t vdi = create_vdi(sd, name, size);

    OK(sd_vdi_read(sd, vdi, got, size, 0));
    CHECK_ZERO(got, size);
    OK(sd_vdi_get_info(vdi, &info, sizeof info));
    CHECK(info.allocated == 0); /* reading allocates nothing */

    fill(want + OBJECT + 1001, 5000, 1);
    OK(sd_vdi_write(sd, vdi, want + OBJECT + 1001, 5000, (off_t)OBJECT + 1001, 0));
    for (int reopened = 0; reopened < 2; reopened++) {
        memset(got, 0xa5, size);
        OK(sd_vdi_read(sd, vdi, got, size, 0));
        CHECK_BYTES(got, want, size);
        OK(sd_vdi_get_info(vdi, &info, sizeof info));
        CHECK(info.allocated == OBJECT);
        OK(sd_vdi_close(&vdi));
        OK(sd_vdi_open(sd, name, &vdi));
    }
    free(got);
    free(want);
    OK(sd_close(&sd));
}
