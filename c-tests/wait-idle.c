/* While another thread waits for a server that says nothing, a loop that watches the descriptor
 * turns only when there is something to do: also where a timer was set that nobody needs any more. */
#include "support.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>

static sd_t sd;
static sd_vdi_t vdi;
static bool done;

static void *read_slowly(void *opaque)
{
    char data[512];

    (void)opaque;
    OK(sd_vdi_read(sd, vdi, data, sizeof data, 0));
    return NULL;
}

static void ended(sd_t from, int result, void *opaque)
{
    (void)from;
    (void)opaque;
    OK(result);
    done = true;
}

int main(void)
{
    struct lamb *lamb = lamb_start();
    struct pollfd poll_fd = { .events = POLLIN };
    int turns = 0;
    char data[512] = "";
    pthread_t thread;
    uint64_t start;

    OK(sd_init(lamb->tcp, &sd));
    poll_fd.fd = sd_get_fd(sd);
    vdi = create_vdi(sd, "a", OBJECT);
    OK(sd_vdi_write(sd, vdi, data, sizeof data, 0, 0));
    OK(sd_set_timeout(sd, 300));
    OK(sd_vdi_aread(sd, vdi, data, sizeof data, 0, ended, NULL));
    while (!done)
        OK(sd_wait(sd, -1));
    OK(sd_set_timeout(sd, 60000));
    CHECK(kill(lamb->pid, SIGSTOP) == 0);
    CHECK(pthread_create(&thread, NULL, read_slowly, NULL) == 0);
    for (start = monotonic_ms(); monotonic_ms() - start < 1500; turns++) {
        CHECK(poll(&poll_fd, 1, 500) >= 0);
        OK(sd_dispatch(sd));
    }
    CHECK(kill(lamb->pid, SIGCONT) == 0);
    /* A thread that leads and is kept from running for a moment costs some. */
    CHECK(turns < 20000);
    CHECK(pthread_join(thread, NULL) == 0);
    OK(sd_close(&sd));
    lamb_stop(lamb);
}
