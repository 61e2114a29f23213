/* Several loops, each in a thread of its own with a handle of its own. */
#include "loop.h"
#include "support.h"

#include <pthread.h>

#define THREADS 4
#define ROUNDS 50
#define DEPTH 16

static const char *names[THREADS];
static const char *address;

static void *run(void *opaque)
{
    const char *name = opaque;
    static _Thread_local char got[DEPTH][4096];
    char data[4096];
    struct loop *loop = loop_new();
    sd_t sd;
    sd_vdi_t vdi;

    OK(address[0] == '/' ? sd_init_unix(address, &sd) : sd_init(address, &sd));
    vdi = create_vdi(sd, name, OBJECT);
    OK(loop_attach(loop, sd));
    for (int round = 0; round < ROUNDS; round++) {
        struct outcome outcomes[DEPTH] = { { 0 } };

        fill(data, sizeof data, (uint64_t)round);
        loop_write(loop, sd, vdi, data, sizeof data, (size_t)round * 4096);
        for (int i = 0; i < DEPTH; i++)
            OK(sd_vdi_aread(sd, vdi, got[i], sizeof got[i], round * 4096, note_outcome,
                            &outcomes[i]));
        TURN_UNTIL(loop, all_called(outcomes, DEPTH));
        for (int i = 0; i < DEPTH; i++) {
            OK(outcomes[i].result);
            CHECK_BYTES(got[i], data, sizeof data);
        }
    }
    OK(sd_close(&sd));
    loop_free(loop);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];

    address = server_address();
    for (int i = 0; i < THREADS; i++) {
        char suffix[2] = { (char)('a' + i), '\0' };

        names[i] = vdi_name(suffix);
        CHECK(pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)names[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}
