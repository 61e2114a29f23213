/* Attached by a thread that does not run the loop, and detached or closed by it while another one
 * does, with threads in sd_wait() that see everything first: the loop lets go by itself. */
#include "loop.h"
#include "support.h"

#include <pthread.h>
#include <semaphore.h>

#define ROUNDS 20
#define WAITERS 2

static struct loop *loop;
static sem_t running;

static void *run(void *opaque)
{
    CHECK(sem_post(&running) == 0);
    loop_run(loop); /* ends when the loop has let go */
    return opaque;
}

static void *wait_for_work(void *opaque)
{
    sd_t sd = opaque;
    int result = SD_RES_SUCCESS;

    while (result == SD_RES_SUCCESS)
        result = sd_wait(sd, -1);
    CHECK(result == SD_RES_CANCELED || result == SD_RES_INVALID_PARMS);
    return NULL;
}

int main(void)
{
    CHECK(sem_init(&running, 0, 0) == 0);
    loop = loop_new();
    for (int round = 0; round < ROUNDS; round++) {
        bool closing = round % 2;
        sd_t sd = connect_to_server();
        pthread_t runner, waiters[WAITERS];
        size_t size;

        OK(loop_attach(loop, sd));
        FAILS(SD_RES_NO_VDI, sd_vdi_attr_size(sd, vdi_name("none"), "key", &size));
        for (int i = 0; i < WAITERS; i++)
            CHECK(pthread_create(&waiters[i], NULL, wait_for_work, sd) == 0);
        CHECK(pthread_create(&runner, NULL, run, NULL) == 0);
        while (sem_wait(&running) != 0)
            ;
        if (closing) {
            sd_t handle = sd;

            OK(sd_close(&handle));
        } else {
            OK(sd_detach(sd));
        }
        CHECK(pthread_join(runner, NULL) == 0);
        if (!closing)
            OK(sd_close(&sd));
        for (int i = 0; i < WAITERS; i++)
            CHECK(pthread_join(waiters[i], NULL) == 0);
    }
    loop_free(loop);
}
