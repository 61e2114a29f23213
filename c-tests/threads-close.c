/* Closing a handle while other threads read and open through it ends their calls with
 * SD_RES_CANCELED or SD_RES_INVALID_PARMS, at once, and never crashes. */
#include "support.h"

#include <pthread.h>
#include <semaphore.h>

#define THREADS 4

static sd_t sd;
static sd_vdi_t vdi;
static const char *name;
static sem_t busy; /* posted by each thread once a call of its own has succeeded */

static void *read_until_closed(void *opaque)
{
    sd_t mine = sd;
    sd_vdi_t from = vdi;
    char data[4096];
    int result;

    (void)opaque;
    OK(sd_vdi_read(mine, from, data, sizeof data, 0));
    sem_post(&busy);
    while ((result = sd_vdi_read(mine, from, data, sizeof data, 0)) == SD_RES_SUCCESS)
        ;
    CHECK(result == SD_RES_CANCELED || result == SD_RES_INVALID_PARMS);
    return NULL;
}

static void *open_until_closed(void *opaque)
{
    sd_t mine = sd;
    sd_vdi_t opened;
    int result;

    (void)opaque;
    OK(sd_vdi_open(mine, name, &opened));
    OK(sd_vdi_close(&opened));
    sem_post(&busy);
    while ((result = sd_vdi_open(mine, name, &opened)) == SD_RES_SUCCESS)
        if ((result = sd_vdi_close(&opened)) != SD_RES_SUCCESS)
            break;
    CHECK(result == SD_RES_CANCELED || result == SD_RES_INVALID_PARMS);
    return NULL;
}

int main(void)
{
    pthread_t threads[2 * THREADS];
    char data[4096];

    sd = connect_to_server();
    name = vdi_name("a");
    vdi = create_vdi(sd, name, OBJECT);
    fill(data, sizeof data, 1);
    OK(sd_vdi_write(sd, vdi, data, sizeof data, 0, 0));
    CHECK(sem_init(&busy, 0, 0) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[2 * i], NULL, read_until_closed, NULL) == 0);
        CHECK(pthread_create(&threads[2 * i + 1], NULL, open_until_closed, NULL) == 0);
    }
    for (int i = 0; i < 2 * THREADS; i++)
        CHECK(sem_wait(&busy) == 0);
    OK(sd_close(&sd));
    for (int i = 0; i < 2 * THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    sem_destroy(&busy);
}
