/* sd_vdi_aclose(): the handle is gone at once, what is in flight on it ends well, and the lock is
 * given back before the callback. */
#include "async.h"

#define REQUESTS 50

int main(void)
{
    struct lamb *lamb = lamb_start_with_locks();
    static char data[REQUESTS][4096];
    struct noted writes[REQUESTS] = { { 0 } };
    const char *name = vdi_name("a");
    sd_t sd, other;
    sd_vdi_t vdi, copy, second, snapshot;

    OK(sd_init(lamb->tcp, &sd));
    OK(sd_init(lamb->tcp, &other));
    vdi = create_vdi(sd, name, OBJECT);
    for (int i = 0; i < REQUESTS; i++) {
        fill(data[i], sizeof data[i], (uint64_t)i);
        OK(sd_vdi_awrite(sd, vdi, data[i], sizeof data[i], (off_t)sizeof data[i] * i, 0, note,
                         &writes[i]));
    }
    copy = vdi;
    OK(sd_vdi_aclose(&vdi, NOTED));
    CHECK(!vdi && noted.calls == 0);
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, copy, "x", 1, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_aclose(&copy, NOTED));
    while (!noted.calls)
        OK(sd_wait(sd, -1));
    OK(noted.result);
    CHECK(noted.calls == 1 && noted.sd == sd);
    for (int i = 0; i < REQUESTS; i++)
        CHECK(writes[i].calls == 1 && writes[i].result == SD_RES_SUCCESS);

    OK(sd_vdi_open(other, name, &vdi));
    for (int i = 0; i < REQUESTS; i++)
        CHECK_CONTENT(other, vdi, data[i], sizeof data[i], sizeof data[i] * (size_t)i);
    OK(sd_snapshot_create(other, vdi, "tag", &snapshot));
    OK(sd_vdi_open(other, name, &second));
    OK(AWAIT(other, sd_vdi_aclose(&second, NOTED)));
    OK(sd_vdi_write(other, vdi, "x", 1, 0, 0)); /* the other handle goes on, with the lock */
    FAILS(SD_RES_VDI_LOCKED, sd_vdi_open(sd, name, &second));
    OK(AWAIT(other, sd_vdi_aclose(&snapshot, NOTED)));
    OK(sd_snapshot_delete(other, name, "tag", 0));
    OK(AWAIT(other, sd_vdi_aclose(&vdi, NOTED)));
    OK(sd_vdi_open(sd, name, &second));
    OK(sd_close(&other));
    OK(sd_close(&sd));
}
