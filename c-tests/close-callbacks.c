/* When sd_close() has returned no callback of the handle runs any more, nor will: what callbacks
 * use may be freed then, though another thread dispatches. */
#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>

#define ROUNDS 80
#define REQUESTS 16

static sem_t begun;
static atomic_int closed, running;

struct round {
    sd_t sd;
    sd_vdi_t vdi;
    char data[REQUESTS][512];
};

static void ended(sd_t sd, int result, void *opaque)
{
    (void)sd;
    (void)opaque;
    CHECK(result == SD_RES_SUCCESS || result == SD_RES_CANCELED);
    atomic_fetch_add(&running, 1);
    CHECK(!atomic_load(&closed));
    sem_post(&begun);
    for (int i = 0; i < 2; i++) {
        sched_yield();
        CHECK(!atomic_load(&closed));
    }
    atomic_fetch_sub(&running, 1);
}

static void *dispatch_until_closed(void *opaque)
{
    struct round *round = opaque;
    sd_t sd = round->sd;

    while (sd_wait(sd, -1) == SD_RES_SUCCESS)
        ;
    return NULL;
}

int main(void)
{
    const char *name = vdi_name("a");
    struct round round;
    pthread_t thread;

    CHECK(sem_init(&begun, 0, 0) == 0);
    round.sd = connect_to_server();
    round.vdi = create_vdi(round.sd, name, OBJECT);
    OK(sd_close(&round.sd));
    for (int n = 0; n < ROUNDS; n++) {
        sd_t sd = round.sd = connect_to_server();

        atomic_store(&closed, 0);
        OK(sd_vdi_open(sd, name, &round.vdi));
        for (int i = 0; i < REQUESTS; i++)
            OK(sd_vdi_aread(sd, round.vdi, round.data[i], sizeof round.data[i], 0, ended, NULL));
        CHECK(pthread_create(&thread, NULL, dispatch_until_closed, &round) == 0);
        for (int i = 0; i < n % REQUESTS; i++)
            CHECK(sem_wait(&begun) == 0);
        OK(sd_close(&sd));
        CHECK(!atomic_load(&running));
        atomic_store(&closed, 1);
        CHECK(pthread_join(thread, NULL) == 0);
        while (sem_trywait(&begun) == 0)
            ;
    }
    sem_destroy(&begun);
}
