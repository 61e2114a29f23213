/* sd_close() and sd_detach() in another thread than the one that runs the loop: the loop, which is
 * waiting, lets go by itself. */
#include "loop.h"
#include "support.h"

#include <pthread.h>
#include <semaphore.h>

#define REQUESTS 100
#define ROUNDS 10

static sd_t sd;
static sd_vdi_t vdi;
static struct outcome outcomes[REQUESTS];
static char data[REQUESTS][512];
static sem_t running;
static bool closing;

static void on_first(sd_t of, int result, void *opaque)
{
    (void)of, (void)opaque;
    OK(result);
    CHECK(sem_post(&running) == 0);
}

static void *end(void *opaque)
{
    while (sem_wait(&running) != 0)
        ;
    for (int i = 0; i < REQUESTS; i++) {
        outcomes[i] = (struct outcome){ 0 };
        if (closing)
            OK(sd_vdi_aread(sd, vdi, data[i], sizeof data[i], i, note_outcome, &outcomes[i]));
    }
    OK(closing ? sd_close(&sd) : sd_detach(sd));
    return opaque;
}

static void run(struct loop *loop)
{
    pthread_t thread;
    char byte;

    OK(loop_attach(loop, sd));
    OK(sd_vdi_aread(sd, vdi, &byte, 1, 0, on_first, NULL));
    CHECK(pthread_create(&thread, NULL, end, NULL) == 0);
    loop_run(loop); /* ends when the loop has let go */
    CHECK(pthread_join(thread, NULL) == 0);
}

int main(void)
{
    struct loop *loop = loop_new();

    CHECK(sem_init(&running, 0, 0) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        char suffix[2] = { (char)('a' + round), '\0' };

        sd = connect_to_server();
        vdi = create_vdi(sd, vdi_name(suffix), OBJECT);
        closing = false;
        run(loop);
        closing = true;
        run(loop);
        CHECK(sd == NULL && all_called(outcomes, REQUESTS));
    }
    loop_free(loop);
}
