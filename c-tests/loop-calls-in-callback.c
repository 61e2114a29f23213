/* Inside a callback everything may be called: submissions, blocking calls, also on another
 * connection, closing the VDI. */
#include "loop.h"
#include "support.h"

#define REQUESTS 50

static const char *first_name, *second_name;
static sd_vdi_t vdi;
static struct outcome outcomes[REQUESTS], chain;
static char data[REQUESTS][512];
static int chained;

static void blocking_calls(sd_t sd)
{
    char got[5];
    struct sd_list_iter iter;
    struct sd_vdi_info info;
    sd_vdi_t opened;
    size_t used;

    OK(sd_vdi_write(sd, vdi, "hello", 5, 1000, SD_WRITE_FUA));
    OK(sd_vdi_read(sd, vdi, got, 5, 1000));
    CHECK_BYTES(got, "hello", 5);
    OK(sd_vdi_flush(sd, vdi));
    OK(sd_vdi_open(sd, first_name, &opened));
    OK(sd_vdi_close(&opened));
    OK(sd_vdi_list(sd, &iter));
    CHECK(iter.has_next());
    iter.destory();
    OK(sd_vdi_get_info(vdi, &info, sizeof info));
    OK(sd_get_buffer_usage(sd, &used));
    /* That of the request whose callback this is has been given back. */
    CHECK(used % (sizeof data[0] + 4096) == 0 && used < REQUESTS * (sizeof data[0] + 4096));
}

static void another_connection(void)
{
    sd_t other = connect_to_server();
    sd_vdi_t opened = create_vdi(other, second_name, OBJECT);
    struct outcome outcome = { 0 };
    char got[5];

    OK(sd_vdi_write(other, opened, "other", 5, 0, 0));
    OK(sd_vdi_aread(other, opened, got, 5, 0, note_outcome, &outcome));
    while (!outcome.calls)
        OK(sd_wait(other, -1));
    OK(outcome.result);
    CHECK_BYTES(got, "other", 5);
    OK(sd_close(&other));
}

/* One request after the other, each started by the callback of the one before. */
static void on_chained(sd_t sd, int result, void *opaque)
{
    OK(result);
    if (++chained < 100)
        OK(sd_vdi_aread(sd, vdi, data[0], 1, chained, on_chained, opaque));
    else
        note_outcome(sd, result, opaque);
}

static void on_done(sd_t sd, int result, void *opaque)
{
    static int calls;

    note_outcome(sd, result, opaque);
    OK(result);
    switch (++calls) {
    case 2:
        blocking_calls(sd);
        break;
    case 4:
        another_connection();
        break;
    case 6:
        OK(sd_vdi_aread(sd, vdi, data[0], 1, 0, on_chained, &chain));
        break;
    }
}

static void on_close_vdi(sd_t sd, int result, void *opaque)
{
    sd_vdi_t closed = vdi;

    OK(result);
    OK(sd_vdi_close(&vdi));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_aread(sd, closed, data[0], 1, 0, note_outcome, NULL));
    note_outcome(sd, result, opaque);
}

int main(void)
{
    struct loop *loop = loop_new();
    sd_t sd = connect_to_server();
    struct outcome last = { 0 };

    first_name = vdi_name("a");
    second_name = vdi_name("b");
    vdi = create_vdi(sd, first_name, OBJECT);
    OK(loop_attach(loop, sd));
    for (int i = 0; i < REQUESTS; i++)
        OK(sd_vdi_aread(sd, vdi, data[i], sizeof data[i], i, on_done, &outcomes[i]));
    TURN_UNTIL(loop, all_called(outcomes, REQUESTS) && chain.calls);
    CHECK(chained == 100 && chain.calls == 1);

    /* Requests in flight on the VDI that a callback closes end all the same. */
    for (int i = 1; i < REQUESTS; i++)
        outcomes[i] = (struct outcome){ 0 };
    OK(sd_vdi_aread(sd, vdi, data[0], 1, 0, on_close_vdi, &last));
    for (int i = 1; i < REQUESTS; i++)
        OK(sd_vdi_awrite(sd, vdi, data[i], 512, i * 512, 0, note_outcome, &outcomes[i]));
    TURN_UNTIL(loop, last.calls && all_called(outcomes, REQUESTS));
    for (int i = 1; i < REQUESTS; i++)
        OK(outcomes[i].result);
    CHECK(vdi == NULL);
    OK(sd_close(&sd));
    loop_free(loop);
}
