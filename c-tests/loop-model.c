/* Thousands of reads and writes in flight, of all sizes and places, do what they do on an array. */
#include "loop.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>

#define SIZE (4 * OBJECT + 12345)
#define DEPTH 64
#define REQUESTS 6000

static struct request {
    bool busy, write;
    size_t offset, size;
    unsigned char *data;
} requests[DEPTH];

static unsigned char *model;
static int submitted, completed, in_flight;
static uint64_t state = 2013;

static void on_done(sd_t sd, int result, void *opaque)
{
    struct request *request = opaque;

    (void)sd;
    CHECK(request->busy);
    OK(result);
    if (!request->write)
        CHECK_BYTES(request->data, model + request->offset, request->size);
    free(request->data);
    request->busy = false;
    in_flight--;
    completed++;
}

/* Requests in flight that overlap have no order: none do. */
static bool is_free(size_t offset, size_t size)
{
    for (int i = 0; i < DEPTH; i++)
        if (requests[i].busy && offset < requests[i].offset + requests[i].size &&
            requests[i].offset < offset + size)
            return false;
    return true;
}

static void submit(sd_t sd, sd_vdi_t vdi, struct request *request)
{
    static const size_t sizes[] = { 1, 512, 4096, 4096, 4096, 16 * KiB, 64 * KiB, 700 * KiB };
    size_t most = sizes[next_random(&state) % (sizeof sizes / sizeof *sizes)];

    do {
        request->size = 1 + next_random(&state) % most;
        request->offset = next_random(&state) % (SIZE - request->size);
    } while (!is_free(request->offset, request->size));
    request->write = next_random(&state) % 2;
    request->busy = true;
    in_flight++;
    submitted++;
    if (request->write) {
        fill(model + request->offset, request->size, next_random(&state));
        request->data = NULL;
        OK(sd_vdi_awrite(sd, vdi, model + request->offset, request->size,
                         (off_t)request->offset, 0, on_done, request));
    } else {
        request->data = poisoned(request->size);
        OK(sd_vdi_aread(sd, vdi, request->data, request->size, (off_t)request->offset, on_done,
                        request));
    }
}

int main(void)
{
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), SIZE);
    struct loop *loop = loop_new();
    size_t used;

    CHECK(model = calloc(1, SIZE));
    OK(loop_attach(loop, sd));
    while (submitted < REQUESTS) {
        for (int i = 0; i < DEPTH; i++)
            if (!requests[i].busy)
                submit(sd, vdi, &requests[i]);
        loop_turn(loop);
    }
    TURN_UNTIL(loop, in_flight == 0);
    CHECK(completed == submitted);
    OK(sd_get_buffer_usage(sd, &used));
    CHECK(used == 0);
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    OK(sd_close(&sd));
    loop_run(loop);
    loop_free(loop);
    free(model);
}
