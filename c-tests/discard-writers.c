/* Threads that write and discard objects of their own, beside each other, lose nothing, and a
 * discard never takes a neighbour's write. */
#include "support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 4
#define ROUNDS 40
#define OBJECTS 4 /* of each thread, between those of the others */
#define PIECE 4096

static sd_t sd;
static sd_vdi_t vdi;

static void *work(void *opaque)
{
    size_t self = (size_t)(uintptr_t)opaque;
    uint64_t random = self;
    unsigned char data[OBJECTS][PIECE] = { { 0 } };

    for (int round = 0; round < ROUNDS; round++) {
        size_t i = next_random(&random) % OBJECTS, object = (i * THREADS + self) * OBJECT;

        if (next_random(&random) % 2) {
            OK(sd_vdi_discard(sd, vdi, (off_t)object, OBJECT));
            memset(data[i], 0, PIECE);
        } else {
            fill(data[i], PIECE, next_random(&random));
            OK(sd_vdi_write(sd, vdi, data[i], PIECE, (off_t)(object + OBJECT / 2), 0));
        }
        for (i = 0; i < OBJECTS; i++) {
            object = (i * THREADS + self) * OBJECT;
            CHECK_CONTENT(sd, vdi, data[i], PIECE, object + OBJECT / 2);
            CHECK_CONTENT(sd, vdi, NULL, PIECE, object);
        }
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];

    sd = connect_to_server();
    vdi = create_vdi(sd, vdi_name("a"), THREADS * OBJECTS * OBJECT);
    for (uintptr_t t = 0; t < THREADS; t++)
        CHECK(pthread_create(&threads[t], NULL, work, (void *)t) == 0);
    for (int t = 0; t < THREADS; t++)
        CHECK(pthread_join(threads[t], NULL) == 0);
    OK(sd_close(&sd));
}
