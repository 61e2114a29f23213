/* sd_vdi_size() tells the size of a VDI or snapshot, also where no server answers. */
#include "support.h"

static uint64_t size_of(sd_vdi_t vdi)
{
    uint64_t size = 0;

    OK(sd_vdi_size(vdi, &size));
    return size;
}

int main(void)
{
    struct lamb *lamb = lamb_start();
    sd_t sd, other;
    sd_vdi_t vdi, seen, snapshot, closed;
    uint64_t size = 1;

    OK(sd_init(lamb->tcp, &sd));
    OK(sd_init(lamb->tcp, &other));
    vdi = create_vdi(sd, vdi_name("a"), OBJECT + 123);
    OK(sd_vdi_open_ro(other, vdi_name("a"), &seen));
    CHECK(size_of(vdi) == OBJECT + 123);
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    OK(sd_vdi_resize(sd, vdi, 7 * OBJECT));
    CHECK(size_of(vdi) == 7 * OBJECT && size_of(snapshot) == OBJECT + 123);
    CHECK(size_of(seen) == OBJECT + 123);
    OK(sd_vdi_refresh(other, seen));
    CHECK(size_of(seen) == 7 * OBJECT);
    lamb_kill(lamb);
    CHECK(size_of(vdi) == 7 * OBJECT && size_of(snapshot) == OBJECT + 123);
    lamb_restart(lamb);

    closed = vdi;
    OK(sd_close(&sd));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_size(closed, &size));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_size(seen, NULL));
    CHECK(size == 1);
}
