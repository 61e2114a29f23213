/* sd_close() ends a wait of another thread with SD_RES_CANCELED, whatever its time limit; one that
 * begins afterwards finds no handle. */
#include "support.h"

#include <pthread.h>
#include <semaphore.h>

static sem_t ready;

struct waiter {
    sd_t sd;
    int timeout_ms;
};

static void *wait_until_closed(void *opaque)
{
    struct waiter *waiter = opaque;
    int result;

    sem_post(&ready);
    /* The connection itself may have something to do first. */
    while ((result = sd_wait(waiter->sd, waiter->timeout_ms)) == SD_RES_SUCCESS)
        ;
    CHECK(result == SD_RES_CANCELED || result == SD_RES_INVALID_PARMS);
    return NULL;
}

int main(void)
{
    CHECK(sem_init(&ready, 0, 0) == 0);
    for (int round = 0; round < 20; round++) {
        struct waiter waiter = { connect_to_server(), round % 2 ? -1 : 100000 };
        sd_t sd = waiter.sd;
        pthread_t thread;
        uint64_t start;

        CHECK(pthread_create(&thread, NULL, wait_until_closed, &waiter) == 0);
        CHECK(sem_wait(&ready) == 0);
        start = monotonic_ms();
        OK(sd_close(&sd));
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(monotonic_ms() - start < 30000);
    }
    sem_destroy(&ready);
}
