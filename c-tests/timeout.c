/* sd_set_timeout bounds a call to a server that has stopped answering; closing does not wait for
 * it either. */
#include "fake.h"
#include "support.h"

#define TIMEOUT_MS 300
#define SLACK_MS 10000 /* for a busy machine */

/* Answers what sd_init asks, and nothing from then on. */
static bool falls_silent(int fd, const unsigned char *request)
{
    static bool greeted;

    if (greeted)
        return true;
    greeted = true;
    return fake_reply(fd, request, SD_RES_NO_OBJ, 0);
}

int main(void)
{
    struct fake fake;
    struct sd_list_iter iter;
    sd_vdi_t vdi;
    sd_t sd;

    fake_start(&fake, falls_silent);
    OK(sd_init(fake.address, &sd));
    OK(sd_set_timeout(sd, TIMEOUT_MS));

    uint64_t start = monotonic_ms();
    FAILS(SD_RES_TIMEDOUT, sd_vdi_open(sd, "name", &vdi));
    CHECK(monotonic_ms() - start >= TIMEOUT_MS);
    FAILS(SD_RES_TIMEDOUT, sd_vdi_list(sd, &iter));
    FAILS(SD_RES_TIMEDOUT, sd_vdi_delete(sd, "name"));
    OK(sd_close(&sd));
    CHECK(monotonic_ms() - start < 3 * TIMEOUT_MS + SLACK_MS);
    fake_stop(&fake);
}
