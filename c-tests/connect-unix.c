/* sd_init_unix reaches a server by the path of its socket, and it is the same server. */
#include "support.h"

#include <string.h>

int main(void)
{
    struct lamb *lamb = lamb_start();
    const char *name = vdi_name("a");
    char got[8], long_path[200];
    sd_t local, tcp, sd = lamb;
    sd_vdi_t vdi;

    OK(sd_init_unix(lamb->unix_socket, &local));
    vdi = create_vdi(local, name, OBJECT);
    OK(sd_vdi_write(local, vdi, "by path", 8, 0, 0));
    OK(sd_vdi_close(&vdi));

    OK(sd_init(lamb->tcp, &tcp));
    OK(sd_vdi_open(tcp, name, &vdi));
    OK(sd_vdi_read(tcp, vdi, got, sizeof got, 0));
    CHECK_STR(got, "by path");
    OK(sd_close(&tcp));
    OK(sd_close(&local));

    FAILS(SD_RES_INVALID_PARMS, sd_init_unix(NULL, &sd));
    FAILS(SD_RES_INVALID_PARMS, sd_init_unix("", &sd));
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    FAILS(SD_RES_INVALID_PARMS, sd_init_unix(long_path, &sd));
    FAILS(SD_RES_NOT_CONNECTED, sd_init_unix(lamb->directory, &sd));
    lamb_kill(lamb);
    FAILS(SD_RES_NOT_CONNECTED, sd_init_unix(lamb->unix_socket, &sd));
    CHECK(sd == lamb);
}
