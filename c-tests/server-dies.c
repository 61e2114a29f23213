/* A server killed under open handles makes calls fail, within bounds; there is no SIGPIPE, and
 * closing works all the same. */
#include "support.h"

#include <signal.h>

#define DEADLINE_MS 500 /* of each call */
#define SLACK_MS 10000  /* for a busy machine */

static void fails_for_want_of_a_server(int result)
{
    if (result != SD_RES_NOT_CONNECTED && result != SD_RES_TIMEDOUT)
        fail(__FILE__, __LINE__, "a call without a server gave %s", sd_strerror(result));
}

int main(void)
{
    struct lamb *lamb = lamb_start();
    struct sigaction pipe_action;
    struct sd_list_iter iter;
    char data[4096] = "";
    sd_vdi_t vdi, other;
    sd_t sd;

    OK(sd_init(lamb->tcp, &sd));
    vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    OK(sd_vdi_write(sd, vdi, data, sizeof data, 0, 0));
    OK(sd_set_timeout(sd, DEADLINE_MS));
    lamb_kill(lamb);

    uint64_t start = monotonic_ms();
    for (int i = 0; i < 2; i++) {
        fails_for_want_of_a_server(sd_vdi_write(sd, vdi, data, sizeof data, 0, 0));
        fails_for_want_of_a_server(sd_vdi_read(sd, vdi, data, sizeof data, 0));
    }
    fails_for_want_of_a_server(sd_vdi_open(sd, vdi_name("b"), &other));
    fails_for_want_of_a_server(sd_vdi_list(sd, &iter));

    /* Neither does the library change what the program does about SIGPIPE. */
    CHECK(sigaction(SIGPIPE, NULL, &pipe_action) == 0 && pipe_action.sa_handler == SIG_DFL);
    /* The lock cannot be released without a server; the handle is gone all the same. */
    fails_for_want_of_a_server(sd_vdi_close(&vdi));
    CHECK(vdi == NULL);
    OK(sd_close(&sd));
    CHECK(monotonic_ms() - start < 8 * DEADLINE_MS + SLACK_MS);
}
