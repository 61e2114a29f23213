/* Random sequences of everything that changes a VDI, its snapshots and clones give what a model in
 * memory gives: through one client, and where a second one does all but the writing.
 * SD_TEST_SEED chooses another sequence. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS 250
#define MAX_SIZE (7 * MiB)
#define OBJECT_SIZE MiB
#define SNAPSHOTS 6

struct history {
    sd_t writer, other; /* may be the same */
    sd_vdi_t vdi, seen;
    const char *name, *clone_name;
    uint64_t random;
    size_t size;
    unsigned char model[MAX_SIZE];
    struct {
        char tag[16]; /* empty: not taken */
        unsigned char *content;
        size_t size;
    } snapshots[SNAPSHOTS];
    unsigned tags;
};

static size_t below(struct history *h, size_t limit)
{
    return next_random(&h->random) % limit;
}

/* Often whole objects, else anything. */
static void choose_range(struct history *h, size_t *offset, size_t *size)
{
    *offset = below(h, h->size);
    *size = 1 + below(h, (size_t)1 << below(h, 22));
    if (below(h, 2)) {
        *offset -= *offset % OBJECT_SIZE;
        *size = OBJECT_SIZE * (1 + below(h, 2));
    }
    if (*size > h->size - *offset)
        *size = h->size - *offset;
}

static void change_content(struct history *h)
{
    size_t offset, size;

    choose_range(h, &offset, &size);
    if (below(h, 3)) {
        write_both(h->writer, h->vdi, h->model, offset, size, next_random(&h->random));
        return;
    }
    if (below(h, 2))
        OK(sd_vdi_write_zeroes(h->writer, h->vdi, (off_t)offset, size, 0));
    else
        OK(sd_vdi_discard(h->writer, h->vdi, (off_t)offset, size));
    memset(h->model + offset, 0, size);
}

static void discard_by_other(struct history *h)
{
    size_t offset, size;

    choose_range(h, &offset, &size);
    OK(sd_vdi_refresh(h->other, h->seen)); /* one writes at a time: each first looks what there is */
    OK(sd_vdi_discard(h->other, h->seen, (off_t)offset, size));
    OK(sd_vdi_refresh(h->writer, h->vdi));
    memset(h->model + offset, 0, size);
}

static void resize(struct history *h)
{
    size_t size = 1 + below(h, MAX_SIZE);

    OK(sd_vdi_resize(h->other, h->seen, size));
    if (size < h->size) {
        memset(h->model + size, 0, h->size - size);
        OK(sd_vdi_refresh(h->writer, h->vdi));
    }
    h->size = size;
}

static void check_snapshot(struct history *h, size_t i)
{
    sd_vdi_t snapshot = open_snapshot(h->other, h->name, h->snapshots[i].tag);

    CHECK(info_of(snapshot).size == h->snapshots[i].size);
    CHECK_CONTENT(h->other, snapshot, h->snapshots[i].content, h->snapshots[i].size, 0);
    OK(sd_vdi_close(&snapshot));
}

static void take_snapshot(struct history *h, size_t i)
{
    snprintf(h->snapshots[i].tag, sizeof h->snapshots[i].tag, "tag-%u", h->tags++);
    OK(sd_snapshot_create(h->other, h->seen, h->snapshots[i].tag, NULL));
    h->snapshots[i].content = copy_of(h->model, h->size);
    h->snapshots[i].size = h->size;
}

static void delete_snapshot(struct history *h, size_t i)
{
    OK(sd_snapshot_delete(h->other, h->name, h->snapshots[i].tag, 0));
    free(h->snapshots[i].content);
    h->snapshots[i].content = NULL;
    h->snapshots[i].tag[0] = '\0';
}

static void roll_back(struct history *h, size_t i)
{
    sd_vdi_t snapshot = open_snapshot(h->other, h->name, h->snapshots[i].tag);

    OK(sd_snapshot_rollback(h->other, snapshot));
    OK(sd_vdi_close(&snapshot));
    h->size = h->snapshots[i].size;
    memset(h->model, 0, MAX_SIZE);
    memcpy(h->model, h->snapshots[i].content, h->size);
    /* The writer learns of it by its next write, or by refreshing. */
    if (below(h, 2))
        write_both(h->writer, h->vdi, h->model, below(h, h->size), 1, next_random(&h->random));
    else
        OK(sd_vdi_refresh(h->writer, h->vdi));
}

/* A clone that is changed, compared and deleted. */
static void clone(struct history *h, size_t i)
{
    size_t size = h->snapshots[i].size, offset = below(h, size), length = 1 + below(h, size);
    unsigned char *content = copy_of(h->snapshots[i].content, size);
    sd_vdi_t vdi;

    if (length > size - offset)
        length = size - offset;
    OK(sd_vdi_clone(h->other, h->seen, h->clone_name, h->snapshots[i].tag, 0, 0, &vdi));
    if (below(h, 2)) {
        write_both(h->other, vdi, content, offset, length, 1);
    } else {
        OK(sd_vdi_discard(h->other, vdi, (off_t)offset, length));
        memset(content + offset, 0, length);
    }
    CHECK_CONTENT(h->other, vdi, content, size, 0);
    free(content);
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_delete(h->other, h->clone_name));
}

static void step(struct history *h)
{
    size_t i = below(h, SNAPSHOTS);

    switch (below(h, 16)) {
    case 0:
        resize(h);
        break;
    case 1:
        discard_by_other(h);
        break;
    case 2:
    case 3:
        if (!h->snapshots[i].tag[0])
            take_snapshot(h, i);
        else if (below(h, 3) == 0)
            roll_back(h, i);
        else if (below(h, 2))
            delete_snapshot(h, i);
        else
            clone(h, i);
        break;
    case 4:
        if (h->snapshots[i].tag[0])
            check_snapshot(h, i);
        break;
    case 5:
        OK(sd_vdi_close(&h->vdi));
        OK(sd_vdi_open(h->writer, h->name, &h->vdi));
        if (h->writer == h->other)
            h->seen = h->vdi;
        break;
    case 6:
        CHECK_CONTENT(h->writer, h->vdi, h->model, h->size, 0);
        break;
    default:
        change_content(h);
    }
}

static void run(sd_t writer, sd_t other, const char *name, const char *clone_name, uint64_t seed)
{
    struct history *h = calloc(1, sizeof *h);
    struct sd_create_opts options = { .object_size = OBJECT_SIZE };

    CHECK(h);
    h->writer = writer;
    h->other = other;
    h->name = name;
    h->random = seed;
    h->clone_name = clone_name;
    h->size = MAX_SIZE / 2;
    OK(sd_vdi_create_ex(writer, name, h->size, &options, sizeof options, &h->vdi));
    h->seen = writer == other ? h->vdi : open_second(other, name);
    for (int i = 0; i < STEPS; i++)
        step(h);
    CHECK_CONTENT(writer, h->vdi, h->model, h->size, 0);
    OK(sd_vdi_refresh(other, h->seen));
    CHECK_CONTENT(other, h->seen, h->model, h->size, 0);
    for (size_t i = 0; i < SNAPSHOTS; i++) {
        if (h->snapshots[i].tag[0]) {
            check_snapshot(h, i);
            delete_snapshot(h, i);
        }
    }
    CHECK_CONTENT(writer, h->vdi, h->model, h->size, 0);
    free(h);
}

int main(void)
{
    const char *given = getenv("SD_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : 1;
    sd_t one = connect_to_server(), other = connect_to_server();

    need_object_sizes(one);
    printf("SD_TEST_SEED=%llu\n", (unsigned long long)seed);
    run(one, one, vdi_name("one"), vdi_name("one-clone"), seed);
    run(one, other, vdi_name("two"), vdi_name("two-clone"), seed + 1000);
    OK(sd_close(&other));
    OK(sd_close(&one));
}
