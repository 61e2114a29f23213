/* The largest VDI of the ordinary kind, 4 TiB, costs what is written to it and no more. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    size_t size = (size_t)4 << 40;
    char data[1000], got[1000];
    struct sd_vdi_info info;
    sd_vdi_t vdi = create_vdi(sd, name, size);

    fill(data, sizeof data, 1);
    OK(sd_vdi_write(sd, vdi, data, sizeof data, (off_t)(size - sizeof data), 0));
    OK(sd_vdi_close(&vdi));

    OK(sd_vdi_open(sd, name, &vdi));
    OK(sd_vdi_read(sd, vdi, got, sizeof got, (off_t)(size - sizeof got)));
    CHECK_BYTES(got, data, sizeof got);
    OK(sd_vdi_read(sd, vdi, got, sizeof got, (off_t)(size / 2)));
    CHECK_ZERO(got, sizeof got);
    OK(sd_vdi_get_info(vdi, &info, sizeof info));
    CHECK(info.size == size && info.allocated == info.object_size);
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, got, 1, (off_t)size));
    OK(sd_close(&sd));
}
