/* A request that is submitted beside sd_close() is refused, or its callback is called before that
 * returns: none is taken and never told of. */
#include "support.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>

#define ROUNDS 20
#define SIZE (16 * MiB) /* takes a while to copy */

static sem_t begun;
static atomic_int called;

struct request {
    sd_t sd;
    sd_vdi_t vdi;
    const void *data;
    int result;
};

static void ended(sd_t sd, int result, void *opaque)
{
    (void)sd;
    (void)opaque;
    CHECK(result == SD_RES_SUCCESS || result == SD_RES_CANCELED);
    atomic_fetch_add(&called, 1);
}

static void *submit(void *opaque)
{
    struct request *request = opaque;

    sem_post(&begun);
    request->result =
        sd_vdi_awrite(request->sd, request->vdi, request->data, SIZE, 0, 0, ended, NULL);
    return NULL;
}

int main(void)
{
    const char *name = vdi_name("a");
    struct request request = { .data = calloc(1, SIZE) };
    pthread_t thread;
    sd_t sd;

    CHECK(request.data && sem_init(&begun, 0, 0) == 0);
    sd = connect_to_server();
    create_vdi(sd, name, SIZE);
    OK(sd_close(&sd));
    for (int round = 0; round < ROUNDS; round++) {
        sd = request.sd = connect_to_server();
        OK(sd_vdi_open(sd, name, &request.vdi));
        CHECK(sd_get_fd(sd) >= 0);
        atomic_store(&called, 0);
        CHECK(pthread_create(&thread, NULL, submit, &request) == 0);
        CHECK(sem_wait(&begun) == 0);
        OK(sd_close(&sd));
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(atomic_load(&called) == (request.result == SD_RES_SUCCESS));
    }
    sem_destroy(&begun);
    free((void *)request.data);
}
