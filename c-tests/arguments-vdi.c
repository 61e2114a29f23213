/* NULL, closed and foreign handles, and NULL where a pointer is needed, give SD_RES_INVALID_PARMS
 * from every call that changes a VDI or tells about it; out parameters stay as they are. */
#include "support.h"

#include <sys/uio.h>

static int never(off_t offset, size_t size, int status, void *opaque)
{
    (void)offset, (void)size, (void)status, (void)opaque;
    fail(__FILE__, __LINE__, "called for a handle that is none");
}

static void handles_are_refused(sd_t sd, sd_vdi_t vdi)
{
    char data[4] = "old";
    struct iovec vector = { data, 4 };

    FAILS(SD_RES_INVALID_PARMS, sd_vdi_discard(sd, vdi, 0, 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_discard(sd, vdi, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write_zeroes(sd, vdi, 0, 1, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_resize(sd, vdi, 2 * OBJECT));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_readv(sd, vdi, &vector, 1, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_writev(sd, vdi, &vector, 1, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_block_status(sd, vdi, 0, 1, never, NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_refresh(sd, vdi));
    CHECK_STR(data, "old");
}

static void connection_is_refused(sd_t sd, const char *name)
{
    struct sd_create_opts options = { .copies = 1 };
    sd_vdi_t out = (sd_vdi_t)&options;
    char data[4] = "old";
    size_t size = 7;

    FAILS(SD_RES_INVALID_PARMS, sd_vdi_setattr(sd, name, "k", "v", 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_getattr(sd, name, "k", data, 4));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_attr_size(sd, name, "k", &size));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_delattr(sd, name, "k"));
    FAILS(SD_RES_INVALID_PARMS,
          sd_vdi_create_ex(sd, name, OBJECT, &options, sizeof options, &out));
    CHECK_STR(data, "old");
    CHECK(size == 7 && out == (sd_vdi_t)&options);
}

int main(void)
{
    sd_t sd = connect_to_server(), other = connect_to_server(), closed_sd = other;
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT), foreign, closed;
    size_t size;
    char data[1];

    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    OK(sd_vdi_create(other, vdi_name("b"), OBJECT, 0, false, &foreign));
    OK(sd_vdi_create(sd, vdi_name("c"), OBJECT, 0, false, &closed));
    sd_vdi_t copy = closed;
    OK(sd_vdi_close(&closed));
    handles_are_refused(NULL, vdi);
    handles_are_refused(&data, vdi);
    handles_are_refused((sd_t)vdi, (sd_vdi_t)sd);
    handles_are_refused(sd, NULL);
    handles_are_refused(sd, (sd_vdi_t)&data);
    handles_are_refused(sd, copy);
    handles_are_refused(sd, foreign);
    OK(sd_close(&other));
    handles_are_refused(closed_sd, vdi);
    handles_are_refused(closed_sd, foreign);

    connection_is_refused(NULL, name);
    connection_is_refused(&data, name);
    connection_is_refused((sd_t)vdi, name);
    connection_is_refused(closed_sd, name);
    connection_is_refused(sd, NULL);
    connection_is_refused(sd, "");

    FAILS(SD_RES_INVALID_PARMS, sd_vdi_setattr(sd, name, NULL, "v", 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_setattr(sd, name, "k", NULL, 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_getattr(sd, name, NULL, data, 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_getattr(sd, name, "k", NULL, 1));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_attr_size(sd, name, NULL, &size));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_attr_size(sd, name, "k", NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_delattr(sd, name, NULL));
    CHECK_CONTENT(sd, vdi, "x", 1, 0);
    CHECK(info_of(vdi).size == OBJECT);
    OK(sd_close(&sd));
}
