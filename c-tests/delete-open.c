/* A VDI that the same sd_t has open is not deleted: SD_RES_VDI_LOCKED, until the last handle is
 * closed; and it goes on working. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    char data[100], got[100];
    sd_vdi_t one = create_vdi(sd, name, OBJECT), other;

    OK(sd_vdi_open(sd, name, &other));
    FAILS(SD_RES_VDI_LOCKED, sd_vdi_delete(sd, name));
    fill(data, sizeof data, 1);
    OK(sd_vdi_write(sd, one, data, sizeof data, 0, 0));
    OK(sd_vdi_close(&one));
    FAILS(SD_RES_VDI_LOCKED, sd_vdi_delete(sd, name));
    OK(sd_vdi_read(sd, other, got, sizeof got, 0));
    CHECK_BYTES(got, data, sizeof got);
    OK(sd_vdi_close(&other));
    OK(sd_vdi_delete(sd, name));
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, name, &one));
    OK(sd_close(&sd));
}
