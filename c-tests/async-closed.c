/* Each asynchronous call of administration, ended in the middle by sd_close() or sd_aclose(): it
 * calls back once, writes nothing where it is told that it was cancelled, and no lock stays. */
#include "async.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

static struct lamb *lamb;
static sd_t sd;
static struct noted closed;

static void *close_sd(void *opaque)
{
    (void)opaque;
    OK(sd_close(&sd));
    return NULL;
}

static void run(const struct administration_call *call, size_t number, bool asynchronous)
{
    struct administration on;
    pthread_t thread;
    sd_t copy;
    sd_vdi_t vdi;

    OK(sd_init(lamb->tcp, &sd));
    on = prepare_administration(sd, TEST_NAME, number);
    noted = closed = (struct noted){ 0 };
    kill(lamb->pid, SIGSTOP);
    CHECK(waitpid(lamb->pid, NULL, WUNTRACED) == lamb->pid);
    OK(call->submit(&on, NOTED));
    CHECK(noted.calls == 0);
    copy = sd;
    if (asynchronous) {
        OK(sd_aclose(&sd, note, &closed));
        CHECK(!sd && closed.calls == 0 && noted.calls == 0);
        kill(lamb->pid, SIGCONT);
        while (!closed.calls)
            sd_wait(copy, -1);
        OK(closed.result);
        CHECK(closed.sd == copy);
    } else {
        CHECK(pthread_create(&thread, NULL, close_sd, NULL) == 0);
        kill(lamb->pid, SIGCONT);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    CHECK(noted.calls == 1 && noted.sd == copy);
    CHECK(noted.result == SD_RES_SUCCESS || noted.result == SD_RES_CANCELED);
    if (noted.result == SD_RES_CANCELED)
        CHECK(is_untouched(&on));
    FAILS(SD_RES_INVALID_PARMS, sd_wait(copy, 0));

    /* Nobody is left to hold it. */
    OK(sd_init(lamb->tcp, &sd));
    OK(sd_vdi_open(sd, on.name, &vdi));
    OK(sd_close(&sd));
}

int main(void)
{
    lamb = lamb_start_with_locks();
    for (size_t i = 0; i < administration_call_count; i++) {
        run(&administration_calls[i], 2 * i, false);
        run(&administration_calls[i], 2 * i + 1, true);
    }
}
