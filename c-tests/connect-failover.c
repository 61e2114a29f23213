/* Of several addresses those that refuse are passed over, wherever they stand. */
#include "support.h"

#include <stdio.h>
#include <unistd.h>

static void connects(const char *addresses)
{
    sd_t sd;

    OK(sd_init(addresses, &sd));
    FAILS(SD_RES_NO_VDI, sd_vdi_delete(sd, vdi_name("absent")));
    OK(sd_close(&sd));
}

int main(void)
{
    struct lamb *lamb = lamb_start();
    char refused[2][32], list[200];
    int fds[2] = { bound_socket(refused[0]), bound_socket(refused[1]) };
    sd_t sd;

    snprintf(list, sizeof list, "%s,%s,%s", refused[0], refused[1], lamb->tcp);
    connects(list);
    snprintf(list, sizeof list, "%s,%s", lamb->tcp, refused[0]);
    connects(list);
    snprintf(list, sizeof list, "%s,%s", refused[0], refused[1]);
    FAILS(SD_RES_NOT_CONNECTED, sd_init(list, &sd));

    lamb_stop(lamb);
    close(fds[0]);
    close(fds[1]);
}
