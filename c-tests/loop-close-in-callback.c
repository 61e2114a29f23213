/* sd_close() inside a callback ends every request, each callback once, and the loop lets go; of
 * two handles on a loop the other one goes on. */
#include "loop.h"
#include "support.h"

#define REQUESTS 200
#define CLOSE_AT 20

static sd_t sd, other;
static struct outcome outcomes[REQUESTS], others[REQUESTS];
static int calls;

static void on_done(sd_t of, int result, void *opaque)
{
    struct outcome *outcome = opaque;

    note_outcome(of, result, outcome);
    if (++calls == CLOSE_AT) {
        OK(sd_close(&sd));
        CHECK(sd == NULL && calls == REQUESTS); /* called for all before it returned */
        FAILS(SD_RES_INVALID_PARMS, sd_dispatch(of));
    } else if (calls > CLOSE_AT) {
        CHECK(result == SD_RES_SUCCESS || result == SD_RES_CANCELED);
    }
}

int main(void)
{
    struct loop *loop = loop_new();
    static char data[REQUESTS][512];
    sd_vdi_t vdi, second;

    sd = connect_to_server();
    other = connect_to_server();
    vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    second = create_vdi(other, vdi_name("b"), OBJECT);
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    OK(sd_vdi_write(other, second, "x", 1, 0, 0));
    OK(loop_attach(loop, sd));
    OK(loop_attach(loop, other));
    for (int i = 0; i < REQUESTS; i++) {
        OK(sd_vdi_aread(sd, vdi, data[i], sizeof data[i], i, on_done, &outcomes[i]));
        OK(sd_vdi_aread(other, second, data[i], sizeof data[i], i, note_outcome, &others[i]));
    }
    TURN_UNTIL(loop, all_called(outcomes, REQUESTS) && all_called(others, REQUESTS));
    for (int i = 0; i < REQUESTS; i++)
        OK(others[i].result);
    OK(sd_close(&other));
    loop_run(loop); /* there is nothing to wait for any more */
    loop_free(loop);
    CHECK(calls == REQUESTS);
}
