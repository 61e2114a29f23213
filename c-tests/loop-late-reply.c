/* A reply that comes after its request has timed out is nobody's: neither does it touch the buffer
 * of the old request, nor is it taken for that of a newer one. */
#include "loop.h"
#include "support.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define REQUESTS 224
#define SIZE (256 * KiB) /* all of them are more than sockets hold and one turn receives */

static struct lamb *lamb;
static struct outcome late[REQUESTS], later[REQUESTS];
static unsigned char *model, *old, *got;
static bool stopped;

static void on_late(sd_t sd, int result, void *opaque)
{
    struct outcome *outcome = opaque;
    size_t i = (size_t)(outcome - late);

    note_outcome(sd, result, outcome);
    if (result == SD_RES_SUCCESS)
        CHECK_BYTES(old + i * SIZE, model + i * SIZE, SIZE);
    else
        FAILS(SD_RES_TIMEDOUT, result);
    memset(old + i * SIZE, 0xee, SIZE); /* ours again, whatever still comes in */
    /* The server stops in the middle of its answers. */
    if (!stopped)
        CHECK(kill(lamb->pid, SIGSTOP) == 0);
    stopped = true;
}

int main(void)
{
    struct loop *loop = loop_new();
    int timed_out = 0;
    sd_vdi_t vdi;
    sd_t sd;

    lamb = lamb_start();
    model = malloc(REQUESTS * SIZE);
    old = malloc(REQUESTS * SIZE);
    got = poisoned(REQUESTS * SIZE);
    CHECK(model && old);
    fill(model, REQUESTS * SIZE, 1);
    OK(sd_init(lamb->tcp, &sd));
    vdi = create_vdi(sd, vdi_name("a"), REQUESTS * SIZE);
    OK(sd_vdi_write(sd, vdi, model, REQUESTS * SIZE, 0, 0));
    OK(loop_attach(loop, sd));

    OK(sd_set_timeout(sd, 1000));
    for (size_t i = 0; i < REQUESTS; i++)
        OK(sd_vdi_aread(sd, vdi, old + i * SIZE, SIZE, (off_t)(i * SIZE), on_late, &late[i]));
    TURN_UNTIL(loop, all_called(late, REQUESTS));
    for (size_t i = 0; i < REQUESTS; i++)
        timed_out += late[i].result == SD_RES_TIMEDOUT;
    CHECK(timed_out > 0);

    OK(sd_set_timeout(sd, 0));
    for (size_t i = 0; i < REQUESTS; i++) {
        size_t block = REQUESTS - 1 - i;

        OK(sd_vdi_aread(sd, vdi, got + block * SIZE, SIZE, (off_t)(block * SIZE), note_outcome,
                        &later[i]));
    }
    CHECK(kill(lamb->pid, SIGCONT) == 0);
    TURN_UNTIL(loop, all_called(later, REQUESTS));
    for (size_t i = 0; i < REQUESTS; i++)
        OK(later[i].result);
    CHECK_BYTES(got, model, REQUESTS * SIZE);
    for (size_t i = 0; i < REQUESTS * SIZE; i++)
        CHECK(old[i] == 0xee);
    CHECK(all_called(late, REQUESTS));
    OK(sd_close(&sd));
    loop_free(loop);
    free(model);
    free(old);
    free(got);
}
