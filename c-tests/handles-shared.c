/* Two handles of one sd_t on one VDI see each other's writes and allocations, and each closes on
 * its own. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    char data[3000], got[3000];
    sd_vdi_t one = create_vdi(sd, name, 2 * OBJECT), other;
    off_t border = (off_t)(OBJECT - 1500);

    OK(sd_vdi_open(sd, name, &other));
    CHECK(one != other);
    OK(sd_vdi_read(sd, other, got, sizeof got, border)); /* knows the objects as unallocated */
    fill(data, sizeof data, 1);
    OK(sd_vdi_write(sd, one, data, sizeof data, border, 0));
    OK(sd_vdi_read(sd, other, got, sizeof got, border));
    CHECK_BYTES(got, data, sizeof got);

    /* A second allocation of the same objects would lose the first one's data. */
    OK(sd_vdi_write(sd, other, data, 10, 0, 0));
    OK(sd_vdi_close(&one));
    OK(sd_vdi_read(sd, other, got, sizeof got, border));
    CHECK_BYTES(got, data, sizeof got);
    OK(sd_close(&sd));
}
