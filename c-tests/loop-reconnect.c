/* The server dies under hundreds of requests and comes back: all of them end well, and the
 * descriptor is the same. */
#include "loop.h"
#include "support.h"

#include <stdlib.h>

#define REQUESTS 300
#define SIZE 4096

static struct outcome outcomes[REQUESTS], reads[REQUESTS];

int main(void)
{
    struct loop *loop = loop_new();
    struct lamb *lamb = lamb_start();
    unsigned char *model = malloc(REQUESTS * SIZE), *got = poisoned(REQUESTS * SIZE);
    sd_vdi_t vdi;
    sd_t sd;
    int fd;

    CHECK(model);
    fill(model, REQUESTS * SIZE, 1);
    OK(sd_init_unix(lamb->unix_socket, &sd)); /* the address that does not change */
    vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    OK(loop_attach(loop, sd));
    fd = sd_get_fd(sd);
    for (int i = 0; i < REQUESTS; i++)
        OK(sd_vdi_awrite(sd, vdi, model + i * SIZE, SIZE, i * SIZE, 0, note_outcome,
                         &outcomes[i]));
    loop_turn(loop);
    lamb_kill(lamb);
    loop_turn(loop);
    lamb_restart(lamb);
    TURN_UNTIL(loop, all_called(outcomes, REQUESTS));
    for (int i = 0; i < REQUESTS; i++)
        OK(outcomes[i].result);
    for (int i = 0; i < REQUESTS; i++)
        OK(sd_vdi_aread(sd, vdi, got + i * SIZE, SIZE, i * SIZE, note_outcome, &reads[i]));
    TURN_UNTIL(loop, all_called(reads, REQUESTS));
    CHECK_BYTES(got, model, REQUESTS * SIZE);
    CHECK(sd_get_fd(sd) == fd);
    OK(sd_close(&sd));
    loop_free(loop);
    free(model);
    free(got);
}
