/* What one connection wrote, another one that opens the VDI afterwards reads. */
#include "support.h"

#include <stdlib.h>

int main(void)
{
    sd_t writer = connect_to_server(), reader = connect_to_server();
    const char *name = vdi_name("a");
    size_t size = 2 * OBJECT + 99;
    char *data = malloc(size), *got = poisoned(size);
    sd_vdi_t vdi = create_vdi(writer, name, size), seen;

    fill(data, size, 1);
    OK(sd_vdi_write(writer, vdi, data, size, 0, 0));
    OK(sd_vdi_flush(writer, vdi));
    OK(sd_vdi_open(reader, name, &seen));
    OK(sd_vdi_read(reader, seen, got, size, 0));
    CHECK_BYTES(got, data, size);

    OK(sd_close(&writer)); /* which takes nothing from the other one */
    OK(sd_vdi_read(reader, seen, got, size, 0));
    CHECK_BYTES(got, data, size);
    OK(sd_close(&reader));
    free(data);
    free(got);
}
