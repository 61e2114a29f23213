/* A callback may wait for other requests of its handle, with sd_wait() or by poll(2) as nested
 * event loops do: for those whose answers came together with its own, and for new ones. */
#include "support.h"

#include <poll.h>

#define REQUESTS 32
#define BOUND_MS 10000 /* not for ever */

static sd_t sd;
static sd_vdi_t vdi;
static char data[REQUESTS + 1][4096];
static int done;
static bool nested, by_poll;

static void ended(sd_t from, int result, void *opaque)
{
    (void)from;
    (void)opaque;
    OK(result);
    done++;
}

static void wait_here(void)
{
    struct pollfd poll_fd = { .fd = sd_get_fd(sd), .events = POLLIN };

    if (by_poll) {
        CHECK(poll(&poll_fd, 1, BOUND_MS) == 1);
        OK(sd_dispatch(sd));
    } else {
        OK(sd_wait(sd, BOUND_MS));
    }
}

static void ends_after_all_others(sd_t from, int result, void *opaque)
{
    ended(from, result, opaque);
    if (nested)
        return;
    nested = true;
    OK(sd_vdi_aread(sd, vdi, data[REQUESTS], sizeof data[0], 0, ended, NULL));
    while (done < REQUESTS + 1)
        wait_here();
}

int main(void)
{
    sd = connect_to_server();
    vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    for (int round = 0; round < 20; round++) {
        by_poll = round % 2;
        nested = false;
        done = 0;
        for (int i = 0; i < REQUESTS; i++)
            OK(sd_vdi_aread(sd, vdi, data[i], sizeof data[0], 0, ends_after_all_others, NULL));
        while (done < REQUESTS + 1)
            OK(sd_wait(sd, BOUND_MS));
    }
    OK(sd_close(&sd));
}
