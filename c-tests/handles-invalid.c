/* A handle that is NULL, garbage, closed, closed twice, or of the wrong kind or owner gives
 * SD_RES_INVALID_PARMS from every function, and out parameters stay as they are. */
#include "support.h"

static void every_call_refuses(sd_t sd, sd_vdi_t vdi)
{
    struct sd_list_iter iter = { .opaqe = &sd };
    sd_vdi_t out = (sd_vdi_t)&sd;
    char data[16] = "untouched";

    FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, data, sizeof data, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, NULL, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, data, sizeof data, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_flush(sd, vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create(sd, "name", OBJECT, 0, false, &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_open(sd, "name", &out));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_delete(sd, "name"));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_list(sd, &iter));
    CHECK_STR(data, "untouched");
    CHECK(out == (sd_vdi_t)&sd && iter.opaqe == &sd);
}

static void vdi_is_refused(sd_t sd, sd_vdi_t vdi)
{
    struct sd_vdi_info info = { .name = "untouched" };
    sd_vdi_t copy = vdi;
    char data[16] = "untouched";

    FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, data, sizeof data, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, data, sizeof data, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_flush(sd, vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_get_info(vdi, &info, sizeof info));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_close(&copy));
    CHECK(copy == vdi);
    CHECK_STR(data, "untouched");
    CHECK_STR(info.name, "untouched");
}

static void sd_is_refused(sd_t sd, sd_vdi_t vdi)
{
    sd_t copy = sd;

    every_call_refuses(sd, vdi);
    FAILS(SD_RES_INVALID_PARMS, sd_close(&copy));
    CHECK(copy == sd);
}

int main(void)
{
    sd_t sd = connect_to_server(), other = connect_to_server(), closed;
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    sd_vdi_t stale, vdi_of_other = create_vdi(other, vdi_name("b"), OBJECT);
    char data[1];

    sd_is_refused(NULL, vdi);
    sd_is_refused(&data, vdi);
    sd_is_refused((sd_t)(uintptr_t)0xdeadbeef, vdi);
    sd_is_refused((sd_t)UINTPTR_MAX, vdi);
    sd_is_refused((sd_t)vdi, vdi);

    vdi_is_refused(sd, NULL);
    vdi_is_refused(sd, (sd_vdi_t)&data);
    vdi_is_refused(sd, (sd_vdi_t)UINTPTR_MAX);
    vdi_is_refused(sd, (sd_vdi_t)sd);

    FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi_of_other, data, 1, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi_of_other, data, 1, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_flush(sd, vdi_of_other));

    /* A stale handle stays stale when its place has been taken again. */
    stale = vdi;
    OK(sd_vdi_close(&vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_close(&vdi));
    vdi_is_refused(sd, stale);
    vdi = create_vdi(sd, vdi_name("c"), OBJECT);
    CHECK(vdi != stale);
    vdi_is_refused(sd, stale);

    closed = sd;
    OK(sd_close(&sd));
    FAILS(SD_RES_INVALID_PARMS, sd_close(&sd));
    sd_is_refused(closed, vdi);
    vdi_is_refused(closed, vdi); /* closing an sd_t closes its VDIs */
    sd = connect_to_server();
    CHECK(sd != closed);
    sd_is_refused(closed, vdi);

    OK(sd_vdi_read(other, vdi_of_other, data, 1, 0));
    OK(sd_close(&other));
    OK(sd_close(&sd));
}
