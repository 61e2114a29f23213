/* The limits of attributes: keys of 1 to 255 bytes, values of 0 to 65536 bytes, any bytes; a buffer
 * that is too small is SD_RES_BUFFER_SMALL and gets nothing. */
#include "support.h"

#include <string.h>

#define MOST 65536

static unsigned char value[MOST + 1], got[MOST + 1];

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *missing = vdi_name("missing");
    char key[257], long_name[257];
    size_t size = 99;

    memset(key, 'k', 256);
    key[256] = '\0';
    memset(long_name, 'n', 256);
    long_name[256] = '\0';
    fill(value, sizeof value, 1);
    OK(sd_vdi_create(sd, name, OBJECT, 0, false, NULL));

    OK(sd_vdi_setattr(sd, name, "most", value, MOST));
    OK(sd_vdi_attr_size(sd, name, "most", &size));
    CHECK(size == MOST);
    OK(sd_vdi_getattr(sd, name, "most", got, MOST));
    CHECK_BYTES(got, value, MOST);
    memset(got, 0xa5, sizeof got);
    FAILS(SD_RES_BUFFER_SMALL, sd_vdi_getattr(sd, name, "most", got, MOST - 1));
    FAILS(SD_RES_BUFFER_SMALL, sd_vdi_getattr(sd, name, "most", got, 1));
    FAILS(SD_RES_BUFFER_SMALL, sd_vdi_getattr(sd, name, "most", NULL, 0));
    for (size_t i = 0; i < sizeof got; i++)
        CHECK(got[i] == 0xa5);
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_setattr(sd, name, "most", value, MOST + 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_setattr(sd, name, "most", value, SIZE_MAX));
    OK(sd_vdi_getattr(sd, name, "most", got, MOST + 1));
    CHECK_BYTES(got, value, MOST);
    CHECK(got[MOST] == 0xa5);

    OK(sd_vdi_setattr(sd, name, "none", "", 0));
    OK(sd_vdi_setattr(sd, name, "most", NULL, 0)); /* replaces */
    for (int i = 0; i < 2; i++) {
        const char *empty = i ? "most" : "none";

        OK(sd_vdi_attr_size(sd, name, empty, &size));
        CHECK(size == 0);
        OK(sd_vdi_getattr(sd, name, empty, NULL, 0));
        OK(sd_vdi_getattr(sd, name, empty, got, 1));
        OK(sd_vdi_delattr(sd, name, empty));
        FAILS(SD_RES_NO_OBJ, sd_vdi_getattr(sd, name, empty, NULL, 0));
    }

    FAILS(SD_RES_INVALID_PARMS, sd_vdi_setattr(sd, name, key, "v", 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_setattr(sd, name, "", "v", 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_getattr(sd, name, key, got, 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_attr_size(sd, name, "", &size));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_delattr(sd, name, key));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_setattr(sd, "", "k", "v", 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_setattr(sd, long_name, "k", "v", 1));
    key[255] = '\0';
    OK(sd_vdi_setattr(sd, name, key, "v", 1));
    FAILS(SD_RES_NO_OBJ, sd_vdi_attr_size(sd, name, key + 1, &size));
    OK(sd_vdi_delattr(sd, name, key));

    FAILS(SD_RES_NO_VDI, sd_vdi_setattr(sd, missing, "k", "v", 1));
    FAILS(SD_RES_NO_VDI, sd_vdi_getattr(sd, missing, "k", got, 1));
    FAILS(SD_RES_NO_VDI, sd_vdi_attr_size(sd, missing, "k", &size));
    FAILS(SD_RES_NO_VDI, sd_vdi_delattr(sd, missing, "k"));
    OK(sd_close(&sd));
}
