/* sd_vdi_acreate() and sd_vdi_acreate_ex() create as their blocking forms, with a handle or
 * without. */
#include "async.h"

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *second = vdi_name("b"), *third = vdi_name("c");
    struct sd_create_opts opts = { .prealloc = true };
    sd_vdi_t vdi, none = NULL;

    OK(AWAIT(sd, sd_vdi_acreate(sd, name, OBJECT + 1, 0, false, NULL, NOTED)));
    OK(sd_vdi_open(sd, name, &vdi));
    CHECK(info_of(vdi).size == OBJECT + 1 && info_of(vdi).allocated == 0);
    OK(sd_vdi_close(&vdi));
    OK(AWAIT(sd, sd_vdi_acreate(sd, second, 3 * OBJECT, 1, true, &vdi, NOTED)));
    CHECK(info_of(vdi).copies == 1 && info_of(vdi).allocated == 3 * OBJECT);
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    OK(sd_vdi_close(&vdi));

    FAILS(SD_RES_VDI_EXIST, AWAIT(sd, sd_vdi_acreate(sd, name, OBJECT, 0, false, &none, NOTED)));
    FAILS(SD_RES_INVALID_PARMS, AWAIT(sd, sd_vdi_acreate(sd, third, 0, 0, false, &none, NOTED)));
    FAILS(SD_RES_INVALID_PARMS, AWAIT(sd, sd_vdi_acreate(sd, third, 1, 99, false, &none, NOTED)));

    OK(AWAIT(sd, sd_vdi_acreate_ex(sd, third, 2 * OBJECT, &opts, sizeof opts, &vdi, NOTED)));
    CHECK(info_of(vdi).allocated == 2 * OBJECT);
    opts = (struct sd_create_opts){ .object_size = 12345 };
    FAILS(SD_RES_INVALID_PARMS, AWAIT(sd, sd_vdi_acreate_ex(sd, vdi_name("d"), OBJECT, &opts,
                                                            sizeof opts, &none, NOTED)));
    CHECK(!none);
    OK(sd_close(&sd));
}
