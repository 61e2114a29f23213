/* A handle survives a restart of the server: a call made while it is away waits for it, and finds
 * everything as it was. */
#include "support.h"

#include <pthread.h>

static sd_t sd;
static sd_vdi_t vdi;
static char data[100000], got[100000];

static void *read_it(void *opaque)
{
    (void)opaque;
    OK(sd_vdi_read(sd, vdi, got, sizeof got, (off_t)OBJECT - 5000));
    return NULL;
}

int main(void)
{
    struct lamb *lamb = lamb_start();
    pthread_t reader;

    OK(sd_init_unix(lamb->unix_socket, &sd));
    vdi = create_vdi(sd, vdi_name("a"), 3 * OBJECT);
    fill(data, sizeof data, 1);
    OK(sd_vdi_write(sd, vdi, data, sizeof data, (off_t)OBJECT - 5000, 0));

    lamb_kill(lamb);
    CHECK(pthread_create(&reader, NULL, read_it, NULL) == 0);
    lamb_restart(lamb); /* on the same path */
    CHECK(pthread_join(reader, NULL) == 0);
    CHECK_BYTES(got, data, sizeof got);

    OK(sd_vdi_write(sd, vdi, data, sizeof data, (off_t)(2 * OBJECT), 0));
    OK(sd_vdi_read(sd, vdi, got, sizeof got, (off_t)(2 * OBJECT)));
    CHECK_BYTES(got, data, sizeof got);
    OK(sd_close(&sd));
    lamb_stop(lamb);
}
