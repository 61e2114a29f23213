/* Sizes that no VDI can have are refused and change nothing; the largest one is possible. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT);
    size_t most = info_of(vdi).object_size << 20, small = OBJECT + 1;

    OK(sd_vdi_write(sd, vdi, "data", 4, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_resize(sd, vdi, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_resize(sd, vdi, most + 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_resize(sd, vdi, SIZE_MAX));
    CHECK(info_of(vdi).size == OBJECT);

    OK(sd_vdi_resize(sd, vdi, most));
    CHECK(info_of(vdi).size == most);
    OK(sd_vdi_write(sd, vdi, "end", 3, (off_t)(most - 3), 0));
    CHECK_CONTENT(sd, vdi, "end", 3, most - 3);
    CHECK_CONTENT(sd, vdi, "data", 4, 0);
    CHECK_CONTENT(sd, vdi, NULL, 100, most / 2);
    OK(sd_vdi_resize(sd, vdi, small));
    CHECK_CONTENT(sd, vdi, "data", 4, 0);
    OK(sd_vdi_resize(sd, vdi, most));
    CHECK_CONTENT(sd, vdi, NULL, 3, most - 3);
    OK(sd_close(&sd));
}
