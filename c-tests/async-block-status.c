/* sd_vdi_ablock_status() tells the extents in the thread that dispatches, before its callback; the
 * function may end the walk, or the connection. */
#include "async.h"

#include <pthread.h>

static sd_t sd;
static pthread_t submitter;
static struct extents {
    struct noted noted;
    size_t count;
    off_t offsets[8];
    size_t lengths[8];
    int kinds[8];
    size_t stop_after;
    bool closes;
} seen;

static int extent(off_t offset, size_t len, int status, void *opaque)
{
    struct extents *extents = opaque;

    CHECK(extents->noted.calls == 0 && extents->count < 8);
    CHECK(!pthread_equal(pthread_self(), submitter));
    extents->offsets[extents->count] = offset;
    extents->lengths[extents->count] = len;
    extents->kinds[extents->count++] = status;
    if (extents->closes)
        OK(sd_close(&sd));
    return extents->count == extents->stop_after;
}

static void ended(sd_t sd, int result, void *opaque)
{
    CHECK(!pthread_equal(pthread_self(), submitter));
    note(sd, result, &((struct extents *)opaque)->noted);
}

static void *dispatch(void *opaque)
{
    sd_t copy = sd;

    (void)opaque;
    while (!seen.noted.calls)
        OK(sd_wait(copy, -1));
    return NULL;
}

static int run(sd_vdi_t vdi, off_t offset, size_t len)
{
    pthread_t thread;
    int result;

    seen.count = 0;
    seen.noted.calls = 0;
    result = sd_vdi_ablock_status(sd, vdi, offset, len, extent, ended, &seen);
    if (result != SD_RES_SUCCESS)
        return result;
    CHECK(seen.count == 0);
    CHECK(pthread_create(&thread, NULL, dispatch, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(seen.noted.calls == 1);
    return seen.noted.result;
}

int main(void)
{
    sd_vdi_t vdi;

    submitter = pthread_self();
    sd = connect_to_server();
    vdi = create_vdi(sd, vdi_name("a"), 5 * OBJECT);
    OK(sd_vdi_write(sd, vdi, "x", 1, OBJECT, 0));
    OK(sd_vdi_write(sd, vdi, "x", 1, 2 * OBJECT, 0));
    OK(sd_snapshot_create(sd, vdi, "tag", NULL));
    OK(sd_vdi_write(sd, vdi, "x", 1, 2 * OBJECT, 0));
    OK(run(vdi, 10, 5 * OBJECT - 20));
    CHECK(seen.count == 4);
    CHECK(seen.kinds[0] == SD_EXTENT_HOLE && seen.kinds[1] == SD_EXTENT_SHARED);
    CHECK(seen.kinds[2] == SD_EXTENT_ALLOCATED && seen.kinds[3] == SD_EXTENT_HOLE);
    CHECK(seen.offsets[0] == 10 && seen.lengths[0] == OBJECT - 10);
    CHECK(seen.offsets[3] == (off_t)(3 * OBJECT) && seen.lengths[3] == 2 * OBJECT - 10);
    seen.stop_after = 2;
    OK(run(vdi, 0, 5 * OBJECT));
    CHECK(seen.count == 2);
    seen.stop_after = 0;
    OK(run(vdi, 0, 0));
    CHECK(seen.count == 0);
    FAILS(SD_RES_INVALID_PARMS, run(vdi, 0, 5 * OBJECT + 1));
    FAILS(SD_RES_INVALID_PARMS, run(vdi, -1, 1));
    seen.closes = true;
    FAILS(SD_RES_CANCELED, run(vdi, 0, 5 * OBJECT));
    CHECK(seen.count == 1 && !sd);
}
