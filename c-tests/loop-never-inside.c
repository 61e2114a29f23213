/* No callback comes from inside a submission, or from a blocking call, whatever becomes of the
 * request; one that was refused has none. */
#include "loop.h"
#include "support.h"

#define ROUNDS 300
#define KINDS 8

static bool in_loop;
static struct outcome outcomes[ROUNDS * KINDS];
static char data[64 * KiB];

static void on_done(sd_t sd, int result, void *opaque)
{
    CHECK(in_loop);
    note_outcome(sd, result, opaque);
}

static int submit(sd_t sd, sd_vdi_t vdi, int kind, struct outcome *outcome)
{
    switch (kind) {
    case 0: return sd_vdi_aread(sd, vdi, data, 0, 0, on_done, outcome);
    case 1: return sd_vdi_aread(sd, vdi, data, 512, 0, on_done, outcome);
    case 2: return sd_vdi_aread(sd, vdi, data, 512, OBJECT, on_done, outcome); /* a hole */
    case 3: return sd_vdi_awrite(sd, vdi, data, sizeof data, 0, 0, on_done, outcome);
    case 4: return sd_vdi_aflush(sd, vdi, on_done, outcome);
    case 5: return sd_vdi_adiscard(sd, vdi, OBJECT, 0, on_done, outcome);
    case 6: return sd_vdi_aread(sd, vdi, data, 512, 3 * OBJECT, on_done, outcome); /* beyond */
    default: return sd_vdi_aread(sd, NULL, data, 512, 0, on_done, outcome);
    }
}

int main(void)
{
    struct loop *loop = loop_new();
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), 3 * OBJECT);
    int expected[ROUNDS * KINDS], called;
    bool all;

    OK(loop_attach(loop, sd));
    for (int i = 0; i < ROUNDS * KINDS; i++) {
        int result = submit(sd, vdi, i % KINDS, &outcomes[i]);

        expected[i] = result == SD_RES_SUCCESS;
        if (result != SD_RES_SUCCESS)
            FAILS(SD_RES_INVALID_PARMS, result);
        if (i % 100 == 0)
            OK(sd_vdi_read(sd, vdi, data, 1, 0)); /* may do the work, but tells nobody */
    }
    in_loop = true;
    do {
        loop_turn(loop);
        all = true;
        called = 0;
        for (int i = 0; i < ROUNDS * KINDS; i++) {
            CHECK(outcomes[i].calls <= expected[i]);
            all = all && outcomes[i].calls == expected[i];
            called += outcomes[i].calls;
        }
    } while (!all);
    CHECK(called >= ROUNDS * 6);
    for (int i = 0; i < ROUNDS * KINDS; i++)
        if (expected[i])
            FAILS(i % KINDS == 6 ? SD_RES_INVALID_PARMS : SD_RES_SUCCESS, outcomes[i].result);
    OK(sd_close(&sd));
    loop_free(loop);
}
