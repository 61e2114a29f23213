/* A flush succeeds before and after writes, and as often as one likes; so does a FUA write. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    char data[4096], got[4096];

    OK(sd_vdi_flush(sd, vdi));
    fill(data, sizeof data, 1);
    OK(sd_vdi_write(sd, vdi, data, sizeof data, 100, 0));
    OK(sd_vdi_flush(sd, vdi));
    OK(sd_vdi_flush(sd, vdi));

    fill(data, sizeof data, 2);
    OK(sd_vdi_write(sd, vdi, data, sizeof data, 100, SD_WRITE_FUA));
    OK(sd_vdi_read(sd, vdi, got, sizeof got, 100));
    CHECK_BYTES(got, data, sizeof got);
    OK(sd_close(&sd));
}
