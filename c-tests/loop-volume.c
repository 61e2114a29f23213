/* Reads by the thousand, 64 at a time, each started by the callback of another: memory stays as it
 * is, and at the end nothing is accounted for. An argument says how many, 1000000 for instance. */
#include "loop.h"
#include "support.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH 64
#define SIZE (4 * KiB)
#define BLOCKS 1024
#define SLACK (256 * KiB)

static struct loop *loop;
static sd_vdi_t vdi;
static unsigned char *model;
static long wanted = 20000, started, ended;
static size_t first, most;

static struct slot {
    unsigned char buf[SIZE];
    size_t block;
} slots[DEPTH];

static void on_read(sd_t sd, int result, void *opaque);

static void start(sd_t sd, struct slot *slot)
{
    slot->block = (size_t)(started++ * 7919 % BLOCKS);
    memset(slot->buf, 0, SIZE);
    OK(sd_vdi_aread(sd, vdi, slot->buf, SIZE, (off_t)(slot->block * SIZE), on_read, slot));
}

/* What the program has from malloc(), and the library with it. */
static size_t memory(void)
{
    return mallinfo2().uordblks + mallinfo2().hblkhd;
}

static void on_read(sd_t sd, int result, void *opaque)
{
    struct slot *slot = opaque;

    OK(result);
    CHECK_BYTES(slot->buf, model + slot->block * SIZE, SIZE);
    ended++;
    if (ended == wanted / 10)
        first = most = memory();
    if (ended > wanted / 10 && ended % 1000 == 0 && memory() > most)
        most = memory();
    if (started < wanted)
        start(sd, slot);
}

int main(int argc, char **argv)
{
    sd_t sd = connect_to_server();
    size_t usage;

    if (argc > 1)
        wanted = atol(argv[1]);
    loop = loop_new();
    model = malloc(BLOCKS * SIZE);
    CHECK(model);
    fill(model, BLOCKS * SIZE, 1);
    vdi = create_vdi(sd, vdi_name("a"), BLOCKS * SIZE);
    OK(sd_vdi_write(sd, vdi, model, BLOCKS * SIZE, 0, 0));
    OK(loop_attach(loop, sd));

    for (size_t i = 0; i < DEPTH; i++)
        start(sd, &slots[i]);
    TURN_UNTIL(loop, ended == wanted);
    OK(sd_get_buffer_usage(sd, &usage));
    CHECK(usage == 0);
    printf("%ld reads; %zu bytes of memory after a tenth, %zu at most afterwards\n", ended, first,
           most);
    CHECK(most <= first + SLACK);
    OK(sd_close(&sd));
    loop_free(loop);
    free(model);
}
