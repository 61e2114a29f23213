/* A name of 255 bytes, the longest, is kept whole. */
#include "support.h"

#include <string.h>

int main(void)
{
    sd_t sd = connect_to_server();
    char padding[256] = "", shorter[256];
    struct sd_vdi_info info;
    const char *name;
    sd_vdi_t vdi;

    memset(padding, 'x', 255 - strlen(vdi_name("")));
    name = vdi_name(padding);
    CHECK(strlen(name) == 255);
    vdi = create_vdi(sd, name, OBJECT);
    OK(sd_vdi_get_info(vdi, &info, sizeof info));
    CHECK_STR(info.name, name);
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_open(sd, name, &vdi));

    strcpy(shorter, name);
    shorter[254] = '\0';
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, shorter, &vdi));
    OK(sd_close(&sd));
}
