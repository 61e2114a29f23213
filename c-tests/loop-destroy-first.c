/* The loop may go before the handle: requests in flight stay, and end in the next loop, or with
 * the close. */
#include "loop.h"
#include "support.h"

#define REQUESTS 100

static struct outcome outcomes[REQUESTS];
static char data[REQUESTS][512];

static void submit(sd_t sd, sd_vdi_t vdi)
{
    for (int i = 0; i < REQUESTS; i++) {
        outcomes[i] = (struct outcome){ 0 };
        OK(sd_vdi_aread(sd, vdi, data[i], sizeof data[i], i, note_outcome, &outcomes[i]));
    }
}

int main(void)
{
    struct loop *loop = loop_new();
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);

    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    /* Destroyed without having run. */
    OK(loop_attach(loop, sd));
    loop_free(loop);
    OK(sd_vdi_read(sd, vdi, data[0], sizeof data[0], 0));

    /* Destroyed with requests in flight; then another loop. */
    loop = loop_new();
    OK(loop_attach(loop, sd));
    submit(sd, vdi);
    loop_turn(loop);
    loop_free(loop);
    OK(sd_vdi_read(sd, vdi, data[0], sizeof data[0], 0));
    loop = loop_new();
    OK(loop_attach(loop, sd));
    TURN_UNTIL(loop, all_called(outcomes, REQUESTS));
    for (int i = 0; i < REQUESTS; i++)
        OK(outcomes[i].result);

    /* Destroyed, then detached. */
    loop_free(loop);
    OK(sd_detach(sd));

    /* Destroyed, then closed. */
    loop = loop_new();
    OK(loop_attach(loop, sd));
    submit(sd, vdi);
    loop_free(loop);
    OK(sd_close(&sd));
    CHECK(all_called(outcomes, REQUESTS));
}
