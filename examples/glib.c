/* libsheepdog in a GLib main loop; a pattern for every loop that can watch a descriptor.
 *
 *     cc glib.c $(pkg-config --cflags --libs libsheepdog glib-2.0) -o glib
 *     ./glib 127.0.0.1:7000
 *
 * Writes a VDI with many requests in flight, flushes, reads it back and compares. The loop never
 * waits for a request: each callback starts the next one.
 *
 * sd_get_fd() is readable whenever there is work, and sd_dispatch() does it, without blocking. The
 * descriptor stays the same until sd_close(), so watching it is all there is to it.
 */
#include <glib-unix.h>
#include <sheepdog.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 65536
#define BLOCKS 256
#define DEPTH 16 /* requests in flight */

struct slot {
    int block; /* that the slot's request is for */
    unsigned char data[BLOCK];
};

static GMainLoop *loop;
static sd_t sd;
static sd_vdi_t vdi;
static struct slot slots[DEPTH];
static bool reading;   /* first everything is written, then everything is read */
static int next;       /* block */
static int in_flight;  /* requests */
static int outcome;    /* the first result that was not a success */

static void start_phase(void);

static void failed(int result)
{
    if (outcome == SD_RES_SUCCESS)
        outcome = result;
}

static void on_flushed(sd_t of, int result, void *opaque)
{
    (void)of, (void)opaque;
    if (result != SD_RES_SUCCESS) {
        failed(result);
        g_main_loop_quit(loop);
        return;
    }
    reading = true;
    start_phase();
}

static void end_phase(void)
{
    int result = outcome;

    /* A write is stable after the next flush, as with write and fsync on a file. */
    if (result == SD_RES_SUCCESS && !reading) {
        result = sd_vdi_aflush(sd, vdi, on_flushed, NULL);
        if (result == SD_RES_SUCCESS)
            return;
        failed(result);
    }
    g_main_loop_quit(loop);
}

static void on_done(sd_t of, int result, void *opaque);

/* Starts the next request in this slot, if there is one to start. */
static void advance(struct slot *slot)
{
    off_t offset = (off_t)next * BLOCK;
    int result;

    if (outcome == SD_RES_SUCCESS && next < BLOCKS) {
        slot->block = next++;
        if (!reading)
            memset(slot->data, slot->block, BLOCK);
        /* A read lends its buffer to the library until the callback; a write's is copied, unless
         * the flag is SD_WRITE_NOCOPY, as it is here. SD_RES_NO_MEM would mean that too much is
         * in flight (see sd_set_buffer_limit): to be tried again after a callback. */
        result = reading ? sd_vdi_aread(sd, vdi, slot->data, BLOCK, offset, on_done, slot)
                         : sd_vdi_awrite(sd, vdi, slot->data, BLOCK, offset, SD_WRITE_NOCOPY,
                                         on_done, slot);
        if (result == SD_RES_SUCCESS) {
            in_flight++;
            return;
        }
        failed(result); /* nothing was started, and on_done will not be called */
    }
    if (in_flight == 0)
        end_phase();
}

/* Called by the loop, once for each request that was started. */
static void on_done(sd_t of, int result, void *opaque)
{
    struct slot *slot = opaque;

    (void)of;
    in_flight--;
    if (result != SD_RES_SUCCESS)
        failed(result);
    for (int i = 0; reading && result == SD_RES_SUCCESS && i < BLOCK; i++)
        if (slot->data[i] != (unsigned char)slot->block)
            result = SD_RES_EIO, failed(result); /* not what was written */
    advance(slot);
}

static void start_phase(void)
{
    next = 0;
    for (int i = 0; i < DEPTH && outcome == SD_RES_SUCCESS; i++)
        advance(&slots[i]);
}

/* Says what went wrong, if anything did; true when nothing did. */
static bool succeeded(int result, const char *what)
{
    if (result != SD_RES_SUCCESS)
        fprintf(stderr, "glib: %s: %s\n", what, sd_strerror(result));
    return result == SD_RES_SUCCESS;
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    (void)fd, (void)condition, (void)opaque;
    /* A callback in here may close the handle: nothing of it is used afterwards. Had one done so,
     * the source would have to go with it: G_SOURCE_REMOVE. */
    return sd_dispatch(sd) == SD_RES_SUCCESS ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

int main(int argc, char **argv)
{
    const char *addr = argc > 1 ? argv[1] : "127.0.0.1:7000";
    char name[64];
    guint source;
    bool ok;

    loop = g_main_loop_new(NULL, FALSE);
    snprintf(name, sizeof name, "glib-%ld", (long)getpid());
    if (!succeeded(sd_init(addr, &sd), addr))
        return 1;
    /* Blocking calls work beside the loop, in every thread. */
    ok = succeeded(sd_vdi_create(sd, name, (size_t)BLOCKS * BLOCK, 0, false, &vdi),
                   "sd_vdi_create");
    if (ok) {
        start_phase();
        source = g_unix_fd_add(sd_get_fd(sd), G_IO_IN, on_readable, NULL);
        g_main_loop_run(loop);
        g_source_remove(source); /* before the handle and its descriptor go */
        ok = succeeded(outcome, "reading and writing");
        if (ok)
            printf("%d blocks written, flushed, read back: all the same\n", BLOCKS);
        ok = succeeded(sd_vdi_close(&vdi), "sd_vdi_close") && ok;
        ok = succeeded(sd_vdi_delete(sd, name), "sd_vdi_delete") && ok;
    }
    sd_close(&sd);
    g_main_loop_unref(loop);
    return ok ? 0 : 1;
}
