/* sd_vdi_adelete() deletes as sd_vdi_delete(): not what is open, and all of it. */
#include "async.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, 3 * OBJECT), none = NULL;

    write_both(sd, vdi, (unsigned char[100]){ 0 }, 0, 100, 1);
    FAILS(SD_RES_VDI_LOCKED, AWAIT(sd, sd_vdi_adelete(sd, name, NOTED)));
    CHECK(info_of(vdi).allocated == OBJECT);
    OK(sd_vdi_close(&vdi));
    OK(AWAIT(sd, sd_vdi_adelete(sd, name, NOTED)));
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, name, &none));
    FAILS(SD_RES_NO_VDI, AWAIT(sd, sd_vdi_adelete(sd, name, NOTED)));
    vdi = create_vdi(sd, name, OBJECT);
    CHECK_CONTENT(sd, vdi, NULL, OBJECT, 0);
    OK(sd_close(&sd));
}
