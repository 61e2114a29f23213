/* A reply that comes after its request has timed out is nobody's: neither does it touch the buffer
 * of the old request, nor is it taken for that of a newer one. */
#include "loop.h"
#include "support.h"

#include <signal.h>
#include <stdlib.h>

#define REQUESTS 100
#define SIZE ((size_t)4096)

static struct outcome late[REQUESTS], later[REQUESTS];

int main(void)
{
    struct loop *loop = loop_new();
    struct lamb *lamb = lamb_start();
    unsigned char *model = malloc(REQUESTS * SIZE), *old = poisoned(REQUESTS * SIZE),
                  *untouched = poisoned(REQUESTS * SIZE), *got = poisoned(REQUESTS * SIZE);
    sd_vdi_t vdi;
    sd_t sd;

    CHECK(model);
    fill(model, REQUESTS * SIZE, 1);
    OK(sd_init(lamb->tcp, &sd));
    vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    OK(sd_vdi_write(sd, vdi, model, REQUESTS * SIZE, 0, 0));
    OK(loop_attach(loop, sd));

    OK(sd_set_timeout(sd, 200));
    CHECK(kill(lamb->pid, SIGSTOP) == 0);
    for (size_t i = 0; i < REQUESTS; i++)
        OK(sd_vdi_aread(sd, vdi, old + i * SIZE, SIZE, (off_t)(i * SIZE), note_outcome, &late[i]));
    TURN_UNTIL(loop, all_called(late, REQUESTS));
    for (size_t i = 0; i < REQUESTS; i++)
        FAILS(SD_RES_TIMEDOUT, late[i].result);

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
    CHECK_BYTES(old, untouched, REQUESTS * SIZE);
    CHECK(all_called(late, REQUESTS));
    OK(sd_close(&sd));
    loop_free(loop);
    free(model);
    free(old);
    free(untouched);
    free(got);
}
