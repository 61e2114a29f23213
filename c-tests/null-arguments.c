/* NULL where a pointer is needed gives SD_RES_INVALID_PARMS; a length of zero needs none. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT), out = vdi;
    struct sd_vdi_info info;

    FAILS(SD_RES_INVALID_PARMS, sd_init(server_address(), NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_init_unix("sock", NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_close(NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create(sd, NULL, OBJECT, 0, false, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_open(sd, NULL, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_open(sd, "name", NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_open_ro(sd, NULL, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_open_ro(sd, "name", NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_break_lock(sd, NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_close(NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, NULL, 1, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, NULL, 1, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_delete(sd, NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_list(sd, NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_get_info(vdi, NULL, sizeof info));
    CHECK(out == vdi);

    OK(sd_vdi_read(sd, vdi, NULL, 0, 0));
    OK(sd_vdi_write(sd, vdi, NULL, 0, 0, 0));
    OK(sd_close(&sd));
}
