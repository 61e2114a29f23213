/* Threads that set, replace and delete keys of their own on one VDI do not disturb each other. */
#include "support.h"

#include <pthread.h>
#include <stdio.h>

#define THREADS 4
#define ROUNDS 10

static sd_t sd;
static const char *name;

static void *work(void *opaque)
{
    char key[16], value[3000], got[3000];
    size_t size;

    snprintf(key, sizeof key, "key-%d", (int)(intptr_t)opaque);
    for (int round = 1; round <= ROUNDS; round++) {
        size_t length = sizeof value / (size_t)round;

        fill(value, length, (uint64_t)(uintptr_t)opaque + (uint64_t)round * 100);
        OK(sd_vdi_setattr(sd, name, key, value, length));
        OK(sd_vdi_attr_size(sd, name, key, &size));
        CHECK(size == length);
        OK(sd_vdi_getattr(sd, name, key, got, sizeof got));
        CHECK_BYTES(got, value, length);
        if (round % 3 == 0 || round == ROUNDS)
            OK(sd_vdi_delattr(sd, name, key));
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];

    sd = connect_to_server();
    name = vdi_name("a");
    OK(sd_vdi_create(sd, name, OBJECT, 0, false, NULL));
    for (intptr_t t = 0; t < THREADS; t++)
        CHECK(pthread_create(&threads[t], NULL, work, (void *)t) == 0);
    for (int t = 0; t < THREADS; t++)
        CHECK(pthread_join(threads[t], NULL) == 0);
    OK(sd_close(&sd));
}
