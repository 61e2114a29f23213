/* sd_vdi_break_lock() gives back the lock of whoever holds it, and where there is none does
 * nothing. A handle whose lock is gone does not release the next holder's. */
#include "support.h"

static void run(const char *address, const char *name, bool locks)
{
    sd_t holder, other;
    sd_vdi_t vdi, taken = NULL;
    int result;

    OK(sd_init(address, &holder));
    OK(sd_init(address, &other));
    FAILS(SD_RES_NO_VDI, sd_vdi_break_lock(other, name));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_break_lock(other, ""));
    vdi = create_vdi(holder, name, OBJECT);
    OK(sd_vdi_write(holder, vdi, "x", 1, 0, 0));
    result = sd_vdi_open(other, name, &taken);
    if (locks)
        CHECK(result == SD_RES_VDI_LOCKED && !taken);
    if (result == SD_RES_VDI_LOCKED) {
        OK(sd_vdi_break_lock(other, name));
        OK(sd_vdi_open(other, name, &taken));
        CHECK_CONTENT(other, taken, "x", 1, 0);
        OK(sd_vdi_break_lock(other, name)); /* its own */
        OK(sd_vdi_close(&taken));
        OK(sd_vdi_close(&vdi)); /* which it has lost */

        OK(sd_vdi_open(holder, name, &vdi));
        OK(sd_vdi_break_lock(holder, name));
        OK(sd_vdi_open(other, name, &taken));
        OK(sd_vdi_close(&vdi));
        FAILS(SD_RES_VDI_LOCKED, sd_vdi_open(holder, name, &vdi));
        OK(sd_vdi_close(&taken));
        OK(sd_vdi_open(holder, name, &vdi));
    } else {
        OK(result);
        OK(sd_vdi_break_lock(other, name));
        OK(sd_vdi_close(&taken));
    }
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_break_lock(other, name)); /* there is none */
    OK(sd_vdi_open(other, name, &taken));
    OK(sd_close(&other));
    OK(sd_close(&holder));
}

int main(void)
{
    run(server_address(), vdi_name("a"), false);
    run(lamb_start_with_locks()->tcp, vdi_name("b"), true);
}
