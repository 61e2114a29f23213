/* sd_aclose() beside threads that submit, block and dispatch: what is taken is called back, all of
 * it before the close's own callback, and every thread finds out. */
#include "async.h"

#include <pthread.h>
#include <stdatomic.h>

#define ROUNDS 30

static sd_t sd; /* as it was */
static sd_vdi_t vdi;
static atomic_int taken, told, closed;
static atomic_bool over;
static char data[3][512];

static void count(sd_t sd, int result, void *opaque)
{
    (void)sd, (void)opaque;
    CHECK(result == SD_RES_SUCCESS || result == SD_RES_CANCELED);
    CHECK(!atomic_load(&closed));
    atomic_fetch_add(&told, 1);
}

static void on_closed(sd_t sd, int result, void *opaque)
{
    (void)sd, (void)opaque;
    OK(result);
    atomic_fetch_add(&closed, 1);
}

static bool goes_on(int result)
{
    CHECK(result == SD_RES_SUCCESS || result == SD_RES_CANCELED ||
          result == SD_RES_INVALID_PARMS);
    return result == SD_RES_SUCCESS;
}

static void *submit(void *opaque)
{
    (void)opaque;
    for (;;) {
        atomic_fetch_add(&taken, 1);
        if (!goes_on(sd_vdi_aread(sd, vdi, data[0], sizeof data[0], 0, count, NULL)))
            break;
        /* No more than a few in flight. */
        while (atomic_load(&taken) - atomic_load(&told) > 50 && !atomic_load(&over))
            ;
    }
    atomic_fetch_sub(&taken, 1);
    return NULL;
}

static void *block(void *opaque)
{
    (void)opaque;
    while (goes_on(sd_vdi_read(sd, vdi, data[1], sizeof data[1], 0)) &&
           goes_on(sd_vdi_write(sd, vdi, data[2], sizeof data[2], 4096, 0)))
        ;
    return NULL;
}

static void *dispatch(void *opaque)
{
    int result;

    (void)opaque;
    do
        result = sd_wait(sd, -1);
    while (goes_on(result) || result == SD_RES_CANCELED);
    return NULL;
}

int main(void)
{
    static void *(*const functions[])(void *) = { submit, block, block, dispatch, dispatch };
    enum { THREADS = sizeof functions / sizeof *functions };
    pthread_t threads[THREADS];
    const char *name = vdi_name("a");

    sd = connect_to_server();
    vdi = create_vdi(sd, name, OBJECT);
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    for (int round = 0; round < ROUNDS; round++) {
        sd_t handle = sd;

        atomic_store(&taken, 0);
        atomic_store(&told, 0);
        atomic_store(&closed, 0);
        atomic_store(&over, false);
        for (int i = 0; i < THREADS; i++)
            CHECK(pthread_create(&threads[i], NULL, functions[i], NULL) == 0);
        while (atomic_load(&told) < round * 7)
            ;
        OK(sd_aclose(&handle, on_closed, NULL));
        CHECK(!handle);
        atomic_store(&over, true);
        for (int i = 0; i < THREADS; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(atomic_load(&closed) == 1 && atomic_load(&told) == atomic_load(&taken));
        sd = connect_to_server();
        OK(sd_vdi_open(sd, name, &vdi));
    }
    OK(sd_close(&sd));
}
