/* A VDI opens by its name, again and again; what does not exist does not open. */
#include "support.h"

#include <string.h>

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    char long_name[257], other[300];
    sd_vdi_t vdi, untouched = (sd_vdi_t)&sd;

    memset(long_name, 'x', 256);
    long_name[256] = '\0';
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, name, &untouched));
    OK(sd_vdi_create(sd, name, OBJECT, 0, false, NULL));
    for (int i = 0; i < 20; i++) {
        OK(sd_vdi_open(sd, name, &vdi));
        CHECK(vdi);
        OK(sd_vdi_close(&vdi));
        CHECK(!vdi);
    }

    strcpy(other, name);
    strcat(other, "x");
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, other, &untouched));
    other[strlen(name) - 1] = '\0';
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, other, &untouched));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_open(sd, "", &untouched));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_open(sd, long_name, &untouched));
    CHECK(untouched == (sd_vdi_t)&sd);
    OK(sd_close(&sd));
}
