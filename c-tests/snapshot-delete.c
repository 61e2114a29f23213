/* Three snapshots, the working VDI and two clones, deleted in every kind of order: what is left is
 * whole after each step, byte for byte. */
#include "support.h"

#include <stdio.h>
#include <string.h>

#define SIZE (4 * OBJECT)
#define PIECE 5000 /* compared at the begin and the end of every object */
#define MEMBERS 6

/* Members: snapshots s0 s1 s2 of the VDI, the working VDI, a clone of s0, a clone of s1. */
enum { WORKING = 3, CLONE_OF_0 = 4, CLONE_OF_1 = 5 };

static unsigned char want[MEMBERS][SIZE];
static const char *const tags[] = { "s0", "s1", "s2" };

static void check(sd_t sd, const char *const names[MEMBERS], int member)
{
    sd_vdi_t vdi;

    if (member < WORKING)
        vdi = open_snapshot(sd, names[member], tags[member]);
    else
        OK(sd_vdi_open(sd, names[member], &vdi));
    for (size_t object = 0; object < SIZE; object += OBJECT) {
        size_t end = object + OBJECT - PIECE;
        CHECK_CONTENT(sd, vdi, want[member] + object, PIECE, object);
        CHECK_CONTENT(sd, vdi, want[member] + end, PIECE, end);
    }
    OK(sd_vdi_close(&vdi));
}

/* Writes a little to two objects, so that each member shares some objects with its parent and has
 * some of its own. */
static void change(sd_t sd, sd_vdi_t vdi, int member, size_t first, size_t second)
{
    write_both(sd, vdi, want[member], first * OBJECT + 10, 100, (uint64_t)member + 10);
    write_both(sd, vdi, want[member], (second + 1) * OBJECT - 200, 200, (uint64_t)member + 20);
}

static void run(sd_t sd, int round, const int order[MEMBERS])
{
    char suffix[3][16];
    const char *names[MEMBERS];
    sd_vdi_t vdi, clone;

    for (int i = 0; i < 3; i++)
        snprintf(suffix[i], sizeof suffix[i], "%d-%d", round, i);
    for (int i = 0; i <= WORKING; i++)
        names[i] = i ? names[0] : vdi_name(suffix[0]);
    names[CLONE_OF_0] = vdi_name(suffix[1]);
    names[CLONE_OF_1] = vdi_name(suffix[2]);

    vdi = create_vdi(sd, names[WORKING], SIZE);
    memset(want[0], 0, SIZE);
    write_both(sd, vdi, want[0], 0, 3 * OBJECT, (uint64_t)round); /* the fourth is not allocated */
    for (int i = 0; i < 3; i++) {
        if (i)
            change(sd, vdi, i, 0, (size_t)i);
        OK(sd_snapshot_create(sd, vdi, tags[i], NULL));
        memcpy(want[i + 1], want[i], SIZE);
    }
    change(sd, vdi, WORKING, 1, 3);
    for (int i = 0; i < 2; i++) {
        memcpy(want[CLONE_OF_0 + i], want[i], SIZE);
        OK(sd_vdi_clone(sd, vdi, names[CLONE_OF_0 + i], tags[i], 0, 0, &clone));
        change(sd, clone, CLONE_OF_0 + i, (size_t)i, 3);
        OK(sd_vdi_close(&clone));
    }
    OK(sd_vdi_close(&vdi));

    for (int step = 0; step < MEMBERS; step++) {
        int member = order[step];

        for (int i = step; i < MEMBERS; i++)
            check(sd, names, order[i]);
        if (member < WORKING)
            OK(sd_snapshot_delete(sd, names[member], tags[member], 0));
        else
            OK(sd_vdi_delete(sd, names[member]));
    }
    CHECK(count_snapshots(sd, names[0]) == 0);
}

int main(void)
{
    static const int orders[][MEMBERS] = {
        { 0, 1, 2, 3, 4, 5 }, { 5, 4, 3, 2, 1, 0 }, { 1, 3, 0, 5, 2, 4 },
        { 3, 2, 4, 1, 5, 0 }, { 2, 0, 1, 4, 3, 5 }, { 1, 0, 4, 3, 2, 5 },
    };
    sd_t sd = connect_to_server();

    for (int i = 0; i < (int)(sizeof orders / sizeof *orders); i++)
        run(sd, i, orders[i]);
    OK(sd_close(&sd));
}
