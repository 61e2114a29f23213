/* sd_vdi_aopen() opens as sd_vdi_open(), its lock and its errors included; the handle is there when
 * the callback runs. */
#include "async.h"

static sd_vdi_t vdi;
static char got;

static void read_at_once(sd_t sd, int result, void *opaque)
{
    OK(result);
    CHECK(vdi);
    OK(sd_vdi_read(sd, vdi, &got, 1, 0));
    note(sd, result, opaque);
}

int main(void)
{
    struct lamb *lamb = lamb_start_with_locks();
    sd_t sd = connect_to_server(), holder, other;
    const char *name = vdi_name("a");
    sd_vdi_t none = NULL, held = create_vdi(sd, name, OBJECT);

    OK(sd_vdi_write(sd, held, "x", 1, 0, 0));
    OK(sd_vdi_close(&held));
    OK(AWAIT(sd, sd_vdi_aopen(sd, name, &vdi, read_at_once, &noted)));
    CHECK(got == 'x');
    OK(sd_vdi_write(sd, vdi, "y", 1, 0, 0));
    OK(AWAIT(sd, sd_vdi_aopen(sd, name, &held, NOTED))); /* shares it */
    CHECK_CONTENT(sd, held, "y", 1, 0);
    FAILS(SD_RES_NO_VDI, AWAIT(sd, sd_vdi_aopen(sd, vdi_name("none"), &none, NOTED)));
    CHECK(!none);
    OK(sd_close(&sd));

    OK(sd_init(lamb->tcp, &holder));
    OK(sd_init(lamb->tcp, &other));
    name = vdi_name("b");
    held = create_vdi(holder, name, OBJECT);
    FAILS(SD_RES_VDI_LOCKED, AWAIT(other, sd_vdi_aopen(other, name, &none, NOTED)));
    CHECK(!none);
    OK(sd_vdi_close(&held));
    OK(AWAIT(other, sd_vdi_aopen(other, name, &vdi, NOTED)));
    FAILS(SD_RES_VDI_LOCKED, sd_vdi_open(holder, name, &none));
    OK(sd_close(&other));
    OK(sd_vdi_open(holder, name, &held));
    OK(sd_close(&holder));
}
