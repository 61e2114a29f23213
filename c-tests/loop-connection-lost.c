/* The server dies under hundreds of requests: each callback comes once, with success or with what
 * went wrong. */
#include "loop.h"
#include "support.h"

#define REQUESTS 400
#define DEADLINE_MS 1000

static struct outcome outcomes[REQUESTS];
static char data[REQUESTS][4096];

static int submit(sd_t sd, sd_vdi_t vdi, int i)
{
    off_t offset = (i % 1024) * 4096;

    switch (i % 4) {
    case 0:
        return sd_vdi_aread(sd, vdi, data[i], sizeof data[i], offset, note_outcome, &outcomes[i]);
    case 1:
        return sd_vdi_awrite(sd, vdi, data[i], sizeof data[i], offset, 0, note_outcome,
                             &outcomes[i]);
    case 2:
        return sd_vdi_awrite(sd, vdi, data[i], sizeof data[i], offset,
                             SD_WRITE_NOCOPY | SD_WRITE_FUA, note_outcome, &outcomes[i]);
    default:
        return sd_vdi_aflush(sd, vdi, note_outcome, &outcomes[i]);
    }
}

int main(void)
{
    struct loop *loop = loop_new();
    struct lamb *lamb = lamb_start();
    int submitted = 0, ended = 0;
    size_t used;
    sd_vdi_t vdi;
    sd_t sd;

    OK(sd_init(lamb->tcp, &sd));
    vdi = create_vdi(sd, vdi_name("a"), 16 * OBJECT);
    OK(sd_set_timeout(sd, DEADLINE_MS));
    OK(loop_attach(loop, sd));
    for (; submitted < REQUESTS / 2; submitted++)
        OK(submit(sd, vdi, submitted));
    TURN_UNTIL(loop, outcomes[0].calls && outcomes[1].calls);
    lamb_kill(lamb);
    /* Submitting goes on, as in a program that has not noticed. */
    for (; submitted < REQUESTS; submitted++)
        OK(submit(sd, vdi, submitted));
    TURN_UNTIL(loop, all_called(outcomes, REQUESTS));
    for (int i = 0; i < REQUESTS; i++) {
        int result = outcomes[i].result;

        if (result != SD_RES_SUCCESS && result != SD_RES_NOT_CONNECTED &&
            result != SD_RES_TIMEDOUT)
            fail(__FILE__, __LINE__, "request %d: %s", i, sd_strerror(result));
        ended += result != SD_RES_SUCCESS;
    }
    CHECK(ended >= REQUESTS / 4); /* those after the server's end that need it */
    OK(sd_get_buffer_usage(sd, &used));
    CHECK(used == 0);
    OK(sd_close(&sd));
    loop_free(loop);
}
