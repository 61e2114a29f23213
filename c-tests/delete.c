/* A deleted VDI is gone, with its data: the name is free again, and what is created under it
 * starts with zeros. */
#include "support.h"

#include <stdlib.h>

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *other = vdi_name("ab");
    size_t size = 2 * OBJECT;
    char *data = malloc(size), *kept = malloc(size);
    sd_vdi_t vdi, bystander = create_vdi(sd, other, size);

    fill(kept, size, 1);
    OK(sd_vdi_write(sd, bystander, kept, size, 0, 0));
    FAILS(SD_RES_NO_VDI, sd_vdi_delete(sd, name));
    for (int round = 0; round < 3; round++) {
        vdi = create_vdi(sd, name, size);
        OK(sd_vdi_read(sd, vdi, data, size, 0));
        CHECK_ZERO(data, size);
        fill(data, size, 2);
        OK(sd_vdi_write(sd, vdi, data, size, 0, 0));
        OK(sd_vdi_close(&vdi));
        OK(sd_vdi_delete(sd, name));
        FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, name, &vdi));
        FAILS(SD_RES_NO_VDI, sd_vdi_delete(sd, name));
    }
    OK(sd_vdi_read(sd, bystander, data, size, 0));
    CHECK_BYTES(data, kept, size);
    free(data);
    free(kept);
    OK(sd_close(&sd));
}
