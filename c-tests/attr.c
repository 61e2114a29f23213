/* Attributes of a VDI are set, replaced by longer and shorter values, read, measured and deleted;
 * keys, VDIs and connections do not get mixed up. */
#include "support.h"

#include <string.h>

static sd_t sd;

static void has(const char *name, const char *key, const char *value)
{
    char got[64];
    size_t size = 99;

    OK(sd_vdi_attr_size(sd, name, key, &size));
    CHECK(size == strlen(value));
    memset(got, 0xa5, sizeof got);
    OK(sd_vdi_getattr(sd, name, key, got, sizeof got));
    CHECK_BYTES(got, value, size);
    for (size_t i = size; i < sizeof got; i++)
        CHECK((unsigned char)got[i] == 0xa5); /* no more than the value is written */
}

static void set(const char *name, const char *key, const char *value)
{
    OK(sd_vdi_setattr(sd, name, key, value, strlen(value)));
    has(name, key, value);
}

int main(void)
{
    const char *name = vdi_name("a"), *other = vdi_name("b");
    char got[8] = "as ever";
    size_t size = 99;
    sd_vdi_t vdi; /* an open handle makes no difference */

    sd = connect_to_server();
    vdi = create_vdi(sd, name, OBJECT);
    OK(sd_vdi_create(sd, other, OBJECT, 0, false, NULL));

    FAILS(SD_RES_NO_OBJ, sd_vdi_getattr(sd, name, "k", got, sizeof got));
    FAILS(SD_RES_NO_OBJ, sd_vdi_attr_size(sd, name, "k", &size));
    FAILS(SD_RES_NO_OBJ, sd_vdi_delattr(sd, name, "k"));
    CHECK(size == 99);
    CHECK_STR(got, "as ever");

    set(name, "k", "value");
    set(name, "k", "a longer value");
    set(name, "k", "short");
    set(name, "K", "another key");
    set(other, "k", "another VDI");
    has(name, "k", "short");
    has(name, "K", "another key");
    FAILS(SD_RES_NO_OBJ, sd_vdi_attr_size(sd, other, "K", &size));

    OK(sd_vdi_close(&vdi));
    OK(sd_close(&sd));
    sd = connect_to_server();
    has(name, "k", "short");
    OK(sd_vdi_delattr(sd, name, "k"));
    FAILS(SD_RES_NO_OBJ, sd_vdi_getattr(sd, name, "k", got, sizeof got));
    FAILS(SD_RES_NO_OBJ, sd_vdi_attr_size(sd, name, "k", &size));
    FAILS(SD_RES_NO_OBJ, sd_vdi_delattr(sd, name, "k"));
    has(name, "K", "another key");
    has(other, "k", "another VDI");
    set(name, "k", "back");
    OK(sd_vdi_delattr(sd, name, "k"));
    OK(sd_vdi_delattr(sd, name, "K"));
    OK(sd_vdi_delattr(sd, other, "k"));
    OK(sd_close(&sd));
}
