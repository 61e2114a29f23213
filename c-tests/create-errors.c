/* What cannot be a VDI is refused, and leaves nothing behind. */
#include "support.h"

#include <string.h>

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *taken = vdi_name("taken");
    char long_name[257];
    sd_vdi_t vdi = (sd_vdi_t)&sd;

    memset(long_name, 'x', 256);
    long_name[256] = '\0';

    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create(sd, name, 0, 0, false, &vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create(sd, name, SIZE_MAX, 0, false, &vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create(sd, name, ((size_t)1 << 54) + 1, 0, false, &vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create(sd, "", OBJECT, 0, false, &vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create(sd, long_name, OBJECT, 0, false, &vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create(sd, name, OBJECT, -1, false, &vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create(sd, name, OBJECT, 32, false, &vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create(sd, name, OBJECT, 256, false, &vdi));
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, name, &vdi));

    OK(sd_vdi_create(sd, taken, OBJECT, 0, false, NULL));
    FAILS(SD_RES_VDI_EXIST, sd_vdi_create(sd, taken, 2 * OBJECT, 0, false, &vdi));
    CHECK(vdi == (sd_vdi_t)&sd);
    OK(sd_close(&sd));
}
