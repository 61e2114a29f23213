/* sd_detach() inside a callback: the loop calls no more, and lets go. Attached to another loop, the
 * handle goes on there, with the requests that were in flight. */
#include "loop.h"
#include "support.h"

#define REQUESTS 3000 /* more than one turn can finish */

static struct loop *loop;
static struct outcome outcomes[REQUESTS];
static int calls;
static bool detached;

static void on_done(sd_t sd, int result, void *opaque)
{
    note_outcome(sd, result, opaque);
    OK(result);
    if (++calls == 10) {
        loop_detach(loop, sd);
        detached = true;
    }
}

int main(void)
{
    struct loop *second = loop_new();
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    static char data[REQUESTS][512];
    struct outcome last = { 0 };

    loop = loop_new();
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    OK(loop_attach(loop, sd));
    for (int i = 0; i < REQUESTS; i++)
        OK(sd_vdi_aread(sd, vdi, data[i], sizeof data[i], i, on_done, &outcomes[i]));
    loop_run(loop); /* ends, since nothing is attached any more */
    CHECK(detached && calls < REQUESTS);

    OK(loop_attach(second, sd));
    TURN_UNTIL(second, all_called(outcomes, REQUESTS));
    loop_detach(second, sd);
    loop_run(second);

    /* Back to the first, which is as good as new; and what ends in between is not lost. */
    OK(sd_vdi_aread(sd, vdi, data[0], sizeof data[0], 0, note_outcome, &last));
    OK(sd_vdi_read(sd, vdi, data[1], sizeof data[1], 0));
    OK(loop_attach(loop, sd));
    TURN_UNTIL(loop, last.calls == 1);
    OK(last.result);
    loop_detach(loop, sd);
    OK(sd_detach(sd)); /* once more does nothing */
    loop_run(loop);    /* lets go of it */
    OK(sd_close(&sd));
    FAILS(SD_RES_INVALID_PARMS, sd_detach(sd));
    loop_free(loop);
    loop_free(second);
}
