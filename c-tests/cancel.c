/* pthread_cancel() of a thread that is in the library takes effect after the call: others go on
 * with the handle, and neither a blocking call nor a callback is cut. */
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

static sd_t sd;
static sd_vdi_t vdi;
static char data[512];
static atomic_bool inside, called;

static void *read_and_end(void *opaque)
{
    (void)opaque;
    atomic_store(&inside, true);
    OK(sd_vdi_read(sd, vdi, data, sizeof data, 0));
    pthread_testcancel();
    CHECK(!"not cancelled");
    return NULL;
}

static void cancellation_point(sd_t sd, int result, void *opaque)
{
    (void)sd, (void)opaque;
    OK(result);
    pthread_testcancel();
    atomic_store(&called, true);
}

static void *dispatch_and_end(void *opaque)
{
    (void)opaque;
    OK(sd_vdi_aread(sd, vdi, data, sizeof data, 0, cancellation_point, NULL));
    atomic_store(&inside, true);
    while (!atomic_load(&called))
        OK(sd_wait(sd, -1));
    pthread_testcancel();
    CHECK(!"not cancelled");
    return NULL;
}

static void cancel_in(void *(*function)(void *), struct lamb *lamb)
{
    pthread_t thread;
    void *result;
    char byte;

    kill(lamb->pid, SIGSTOP);
    CHECK(waitpid(lamb->pid, NULL, WUNTRACED) == lamb->pid);
    atomic_store(&inside, false);
    CHECK(pthread_create(&thread, NULL, function, NULL) == 0);
    while (!atomic_load(&inside))
        ;
    CHECK(pthread_cancel(thread) == 0);
    kill(lamb->pid, SIGCONT);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED);
    OK(sd_vdi_read(sd, vdi, &byte, 1, 0));
    OK(sd_vdi_write(sd, vdi, &byte, 1, 0, 0));
}

int main(void)
{
    struct lamb *lamb = lamb_start();

    OK(sd_init(lamb->tcp, &sd));
    vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    cancel_in(read_and_end, lamb);
    cancel_in(dispatch_and_end, lamb);
    OK(sd_close(&sd));
}
