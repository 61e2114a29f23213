/* sd_vdi_block_status tells holes, a VDI's own objects and those shared with its parent apart, in
 * order and without a gap, neighbours of one kind as one, cut to the range. */
#include "support.h"

#define MAX_EXTENTS 16

struct extents {
    size_t count;
    struct {
        off_t offset;
        size_t size;
        int status;
    } at[MAX_EXTENTS];
};

static int collect(off_t offset, size_t size, int status, void *opaque)
{
    struct extents *extents = opaque;

    CHECK(extents->count < MAX_EXTENTS);
    extents->at[extents->count].offset = offset;
    extents->at[extents->count].size = size;
    extents->at[extents->count++].status = status;
    return 0;
}

/* `want` has a letter for each object of the VDI: h(ole), a(llocated), s(hared). Checks the range
 * against it, byte for byte of its borders. */
static void is(sd_t sd, sd_vdi_t vdi, const char *want, size_t offset, size_t size)
{
    struct extents extents = { 0 };
    size_t at = offset, end = offset + size;

    OK(sd_vdi_block_status(sd, vdi, (off_t)offset, size, collect, &extents));
    for (size_t i = 0; i < extents.count; i++) {
        int status = extents.at[i].status;
        char letter = status == SD_EXTENT_HOLE        ? 'h'
                      : status == SD_EXTENT_ALLOCATED ? 'a'
                      : status == SD_EXTENT_SHARED    ? 's'
                                                      : '?';

        CHECK(extents.at[i].offset == (off_t)at && extents.at[i].size > 0);
        CHECK(i == 0 || status != extents.at[i - 1].status);
        for (; at < (size_t)extents.at[i].offset + extents.at[i].size; at += OBJECT - at % OBJECT)
            CHECK(want[at / OBJECT] == letter);
        at = (size_t)extents.at[i].offset + extents.at[i].size;
    }
    CHECK(at == end);
}

static void is_everywhere(sd_t sd, sd_vdi_t vdi, const char *want, size_t size)
{
    is(sd, vdi, want, 0, size);
    is(sd, vdi, want, 0, 0);
    is(sd, vdi, want, size, 0);
    is(sd, vdi, want, 1, size - 2);
    for (size_t object = 0; object < size / OBJECT; object++) {
        is(sd, vdi, want, object * OBJECT, OBJECT);
        is(sd, vdi, want, object * OBJECT + 5, 1);
        is(sd, vdi, want, object * OBJECT + OBJECT - 1, 2);
    }
}

int main(void)
{
    sd_t sd = connect_to_server();
    size_t size = 6 * OBJECT + 300;
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), size), snapshot, clone;
    struct extents extents = { 0 };

    is_everywhere(sd, vdi, "hhhhhhh", size);
    OK(sd_vdi_write(sd, vdi, "x", 1, (off_t)OBJECT + 7, 0));
    OK(sd_vdi_write(sd, vdi, "xy", 2, (off_t)(4 * OBJECT) - 1, 0));
    OK(sd_vdi_write(sd, vdi, "x", 1, (off_t)size - 1, 0));
    is_everywhere(sd, vdi, "hahaaha", size);

    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    is_everywhere(sd, vdi, "hshsshs", size);
    is_everywhere(sd, snapshot, "hahaaha", size);
    OK(sd_vdi_write(sd, vdi, "x", 1, (off_t)(4 * OBJECT), 0));
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    OK(sd_vdi_discard(sd, vdi, (off_t)OBJECT, OBJECT));
    is_everywhere(sd, vdi, "ahhsahs", size);
    is_everywhere(sd, snapshot, "hahaaha", size);
    OK(sd_vdi_clone(sd, snapshot, vdi_name("clone"), NULL, 0, 0, &clone));
    is_everywhere(sd, clone, "hshsshs", size);
    OK(sd_snapshot_rollback(sd, snapshot));
    is_everywhere(sd, vdi, "hshsshs", size);

    FAILS(SD_RES_INVALID_PARMS, sd_vdi_block_status(sd, vdi, 0, size + 1, collect, &extents));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_block_status(sd, vdi, (off_t)size, 1, collect, &extents));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_block_status(sd, vdi, -1, 1, collect, &extents));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_block_status(sd, vdi, 1, SIZE_MAX, collect, &extents));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_block_status(sd, vdi, 0, 1, NULL, &extents));
    CHECK(extents.count == 0);
    OK(sd_close(&sd));
}
