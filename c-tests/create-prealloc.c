/* A preallocated VDI has every object from the start, and reads as zeros all the same. */
#include "support.h"

#include <stdlib.h>

int main(void)
{
    sd_t sd = connect_to_server();
    size_t size = 3 * OBJECT;
    char *data = poisoned(size);
    struct sd_vdi_info info;
    sd_vdi_t vdi;

    OK(sd_vdi_create(sd, vdi_name("a"), size, 0, true, &vdi));
    OK(sd_vdi_get_info(vdi, &info, sizeof info));
    CHECK(info.size == size && info.allocated == size);
    OK(sd_vdi_read(sd, vdi, data, size, 0));
    CHECK_ZERO(data, size);
    free(data);
    OK(sd_close(&sd));
}
