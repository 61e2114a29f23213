/* A writer whose VDI another client shrank is told so at once, even when all it knows of the place
 * it writes to is that nothing is there; and growing again gives zeros. */
#include "support.h"

#define SIZE (4 * OBJECT)

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, SIZE), seen = open_second(other, name);

    OK(sd_vdi_write(writer, vdi, "x", 1, 0, 0));
    CHECK_CONTENT(writer, vdi, "", 1, 3 * OBJECT);
    OK(sd_vdi_resize(other, seen, OBJECT));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(writer, vdi, "x", 1, (off_t)(3 * OBJECT), 0));
    OK(sd_vdi_resize(other, seen, SIZE));
    OK(sd_vdi_refresh(writer, vdi));
    CHECK_CONTENT(writer, vdi, "x", 1, 0);
    CHECK_CONTENT(writer, vdi, NULL, SIZE - 1, 1);
    CHECK_CONTENT(other, seen, NULL, SIZE - 1, 1);
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
