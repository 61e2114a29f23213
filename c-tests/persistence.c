/* What was flushed is there after the server was killed and started again on its directory, for a
 * new connection. */
#include "support.h"

#include <stdlib.h>

int main(void)
{
    struct lamb *lamb = lamb_start();
    const char *name = vdi_name("a"), *deleted = vdi_name("b");
    size_t size = 2 * OBJECT + 100;
    char *data = malloc(size), *got = poisoned(size);
    struct sd_vdi_info before, after;
    sd_vdi_t vdi;
    sd_t sd;

    OK(sd_init(lamb->tcp, &sd));
    OK(sd_vdi_create(sd, deleted, OBJECT, 0, true, NULL));
    vdi = create_vdi(sd, name, size);
    fill(data, size, 1);
    OK(sd_vdi_write(sd, vdi, data, size, 0, 0));
    OK(sd_vdi_flush(sd, vdi));
    OK(sd_vdi_get_info(vdi, &before, sizeof before));
    OK(sd_vdi_delete(sd, deleted));
    lamb_kill(lamb);
    OK(sd_close(&sd));

    lamb_restart(lamb);
    OK(sd_init(lamb->tcp, &sd));
    OK(sd_vdi_open(sd, name, &vdi));
    OK(sd_vdi_read(sd, vdi, got, size, 0));
    CHECK_BYTES(got, data, size);
    OK(sd_vdi_get_info(vdi, &after, sizeof after));
    CHECK_BYTES(&after, &before, sizeof before);
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, deleted, &vdi));
    OK(sd_close(&sd));
    lamb_stop(lamb);
    free(data);
    free(got);
}
