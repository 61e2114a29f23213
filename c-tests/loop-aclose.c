/* sd_aclose() inside a callback: every request ends, each callback once, then its own one, and the
 * loop has let go by then; of two handles on a loop the other one goes on. */
#include "loop.h"
#include "support.h"

#define REQUESTS 200
#define CLOSE_AT 20

static sd_t sd, other;
static struct loop *loop;
static struct outcome outcomes[REQUESTS], others[REQUESTS], closed;
static int calls;
static bool inside;

static void on_closed(sd_t of, int result, void *outcome)
{
    CHECK(calls == REQUESTS && !inside && !sd);
    FAILS(SD_RES_INVALID_PARMS, sd_dispatch(of));
    note_outcome(of, result, outcome);
}

static void on_done(sd_t of, int result, void *outcome)
{
    CHECK(!closed.calls && !inside);
    inside = true;
    note_outcome(of, result, outcome);
    if (++calls == CLOSE_AT) {
        OK(sd_aclose(&sd, on_closed, &closed));
        CHECK(!sd && calls == CLOSE_AT);
        FAILS(SD_RES_INVALID_PARMS, sd_aclose(&of, on_closed, &closed));
    } else if (calls > CLOSE_AT) {
        CHECK(result == SD_RES_SUCCESS || result == SD_RES_CANCELED);
    }
    inside = false;
}

static void submit_all(sd_t of, sd_vdi_t vdi, sd_callback_fn *fn, struct outcome *told)
{
    static char data[2 * REQUESTS][512];
    static int used;

    for (int i = 0; i < REQUESTS; i++)
        OK(sd_vdi_aread(of, vdi, data[used++], sizeof *data, i, fn, &told[i]));
}

int main(void)
{
    sd_vdi_t vdi, second;

    loop = loop_new();
    sd = connect_to_server();
    other = connect_to_server();
    vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    second = create_vdi(other, vdi_name("b"), OBJECT);
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    OK(sd_vdi_write(other, second, "x", 1, 0, 0));
    OK(loop_attach(loop, sd));
    OK(loop_attach(loop, other));
    submit_all(sd, vdi, on_done, outcomes);
    submit_all(other, second, note_outcome, others);
    TURN_UNTIL(loop, all_called(&closed, 1) && all_called(others, REQUESTS));
    CHECK(all_called(outcomes, REQUESTS));
    OK(closed.result);
    for (int i = 0; i < REQUESTS; i++)
        OK(others[i].result);
    closed.calls = 0;
    calls = REQUESTS;
    OK(sd_aclose(&other, on_closed, &closed)); /* outside of one, and the last of the loop */
    TURN_UNTIL(loop, all_called(&closed, 1));
    OK(closed.result);
    loop_run(loop); /* there is nothing to wait for any more */
    loop_free(loop);
}
