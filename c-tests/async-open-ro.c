/* sd_vdi_aopen_ro() opens as sd_vdi_open_ro(): beside a lock, for reading alone. */
#include "async.h"

int main(void)
{
    sd_t writer, reader;
    const char *name = vdi_name("a");
    struct lamb *lamb = lamb_start_with_locks();
    sd_vdi_t vdi, seen, none = NULL;

    OK(sd_init(lamb->tcp, &writer));
    OK(sd_init(lamb->tcp, &reader));
    vdi = create_vdi(writer, name, OBJECT);
    OK(sd_vdi_write(writer, vdi, "x", 1, 0, 0));
    OK(AWAIT(reader, sd_vdi_aopen_ro(reader, name, &seen, NOTED)));
    CHECK_CONTENT(reader, seen, "x", 1, 0);
    FAILS(SD_RES_READONLY, AWAIT(reader, sd_vdi_awrite(reader, seen, "y", 1, 0, 0, NOTED)));
    FAILS(SD_RES_READONLY, AWAIT(reader, sd_vdi_adiscard(reader, seen, 0, 1, NOTED)));
    FAILS(SD_RES_READONLY, AWAIT(reader, sd_vdi_aresize(reader, seen, 1, NOTED)));
    FAILS(SD_RES_READONLY, AWAIT(reader, sd_snapshot_acreate(reader, seen, "t", &none, NOTED)));
    FAILS(SD_RES_NO_VDI, AWAIT(reader, sd_vdi_aopen_ro(reader, vdi_name("b"), &none, NOTED)));
    CHECK(!none);
    OK(AWAIT(reader, sd_vdi_aclose(&seen, NOTED)));
    FAILS(SD_RES_VDI_LOCKED, sd_vdi_open(reader, name, &none));
    OK(sd_close(&reader));
    OK(sd_close(&writer));
}
