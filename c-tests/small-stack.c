/* Threads with little stack may call the library, and callbacks have the rest of it: sheepdog.h says
 * how much the library takes. */
#include "support.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>

#define SAID (64 * KiB) /* what sheepdog.h says */
#define OWN (16 * KiB)  /* for this test and the C library */

static sd_t sd;
static sd_vdi_t vdi;
static char data[64 * KiB];

static void nested(sd_t of, int result, void *opaque)
{
    char byte;

    OK(result);
    ++*(int *)opaque;
    OK(sd_vdi_read(of, vdi, &byte, 1, 0)); /* in a callback, on top of a dispatch */
    FAILS(SD_RES_NO_VDI, sd_vdi_open(of, vdi_name("none"), &(sd_vdi_t){ NULL }));
    CHECK(strlen(sd_last_error()) > 0);
}

static void *call_everything(void *opaque)
{
    struct sd_list_iter iter;
    sd_vdi_t snapshot;
    int calls = 0;

    sd = connect_to_server();
    vdi = create_vdi(sd, vdi_name("a"), 4 * OBJECT);
    for (size_t i = 0; i < 4; i++)
        OK(sd_vdi_write(sd, vdi, data, sizeof data, (off_t)(i * OBJECT), 0));
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    OK(sd_vdi_write(sd, vdi, data, sizeof data, 0, SD_WRITE_FUA));
    OK(sd_vdi_discard(sd, vdi, 0, 2 * OBJECT));
    OK(sd_vdi_resize(sd, vdi, 5 * OBJECT));
    OK(sd_snapshot_rollback(sd, snapshot));
    OK(sd_vdi_setattr(sd, vdi_name("a"), "key", "value", 5));
    OK(sd_vdi_list(sd, &iter));
    iter.destory();
    OK(sd_vdi_aread(sd, vdi, data, sizeof data, 0, nested, &calls));
    OK(sd_vdi_awrite(sd, vdi, data, sizeof data, OBJECT, 0, nested, &calls));
    while (calls < 2)
        OK(sd_wait(sd, -1));
    OK(sd_vdi_close(&snapshot));
    OK(sd_close(&sd));
    return opaque;
}

int main(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    size_t size = SAID + OWN + (size_t)PTHREAD_STACK_MIN;
    void *stack;

    /* With a guard below, so that too little of it shows. */
    CHECK(pthread_attr_init(&attr) == 0 && pthread_attr_setstacksize(&attr, size) == 0);
    CHECK(pthread_create(&thread, &attr, call_everything, NULL) == 0);
    CHECK(pthread_join(thread, &stack) == 0);
    pthread_attr_destroy(&attr);
}
