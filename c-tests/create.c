/* A VDI is created with the size and the copies asked for, and is opened where that is wanted. */
#include "support.h"

#include <string.h>

int main(void)
{
    sd_t sd = connect_to_server();
    const char *opened = vdi_name("opened"), *closed = vdi_name("closed");
    const char *utf8 = vdi_name("sch\xc3\xa4" "fchen/@ :%");
    char byte = 1;
    sd_vdi_t vdi;

    OK(sd_vdi_create(sd, opened, 1, 0, false, &vdi));
    OK(sd_vdi_read(sd, vdi, &byte, 1, 0));
    CHECK(byte == 0);
    OK(sd_vdi_close(&vdi));

    OK(sd_vdi_create(sd, closed, 10 * OBJECT + 1, 1, false, NULL));
    OK(sd_vdi_delete(sd, closed)); /* which no handle holds open */

    OK(sd_vdi_create(sd, utf8, OBJECT, 0, false, NULL));
    OK(sd_vdi_open(sd, utf8, &vdi));
    OK(sd_close(&sd));
}
