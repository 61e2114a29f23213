/* Options that no VDI can have are refused, and leave nothing behind. */
#include "support.h"

int main(void)
{
    static const struct sd_create_opts wrong[] = {
        { .object_size = 1 },           { .object_size = MiB / 2 },
        { .object_size = 3 * MiB },     { .object_size = 4 * MiB + 1 },
        { .object_size = (uint64_t)1 << 32 },
        { .object_size = UINT64_MAX },  { .copies = 32 },
        { .copies = 255 },              { .ec_data = 2 },
        { .ec_parity = 1 },             { .ec_data = 3, .ec_parity = 1 },
        { .ec_data = 32, .ec_parity = 1 },
        { .ec_data = 2, .ec_parity = 16 },
        { .ec_data = 16, .ec_parity = 255 },
        { .object_size = MiB, .hypervolume = true }, /* which has objects of 4 MiB */
        { .reserved = { 1 } },          { .reserved = { 0, 0, 1 } },
    };
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    struct sd_create_opts options = { .object_size = MiB };
    sd_vdi_t vdi = (sd_vdi_t)&sd;

    need_object_sizes(sd);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int result = sd_vdi_create_ex(sd, name, OBJECT, &wrong[i], sizeof wrong[i], &vdi);

        if (wrong[i].hypervolume && result == SD_RES_NO_SUPPORT)
            continue;
        if (result != SD_RES_INVALID_PARMS)
            fail(__FILE__, __LINE__, "options %zu gave %s", i, sd_strerror(result));
    }
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create_ex(sd, name, 0, &options, sizeof options, &vdi));
    FAILS(SD_RES_INVALID_PARMS,
          sd_vdi_create_ex(sd, name, (MiB << 20) + 1, &options, sizeof options, &vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create_ex(sd, "", MiB, &options, sizeof options, &vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_create_ex(sd, NULL, MiB, &options, sizeof options, &vdi));
    CHECK(vdi == (sd_vdi_t)&sd);
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, name, &vdi));

    /* The largest possible one, whose last byte works. */
    OK(sd_vdi_create_ex(sd, name, MiB << 20, &options, sizeof options, &vdi));
    OK(sd_vdi_write(sd, vdi, "x", 1, (off_t)((MiB << 20) - 1), 0));
    CHECK_CONTENT(sd, vdi, "x", 1, (MiB << 20) - 1);
    FAILS(SD_RES_VDI_EXIST,
          sd_vdi_create_ex(sd, name, MiB << 20, &options, sizeof options, NULL));
    OK(sd_close(&sd));
}
