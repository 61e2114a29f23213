/* dog sees what the library made, and the library what dog made: contents, snapshots, clones, lists,
 * the tree, the maps; and dog finds nothing to repair. */
#include "dog.h"
#include "support.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OBJECTS 6
#define SIZE (OBJECTS * OBJECT)

static sd_t sd;
static unsigned char model[SIZE];

static int note_extent(off_t offset, size_t len, int status, void *opaque)
{
    int *objects = opaque;

    for (size_t i = 0; i < len / OBJECT; i++)
        objects[(size_t)offset / OBJECT + i] = status;
    return 0;
}

/* The VDI or snapshot as dog shows it; `flag` is what `dog vdi list` begins its line with. */
static void check(sd_vdi_t vdi, char flag, const void *want)
{
    struct sd_vdi_info info = info_of(vdi);
    uint64_t own = 0, shared = 0;
    char which[600], line[1024];
    int objects[OBJECTS];
    const char *map;

    if (info.snap_time_ns)
        snprintf(which, sizeof which, "-s %" PRIu32 " %s", info.snap_id, info.name);
    else
        snprintf(which, sizeof which, "%s", info.name);

    OK(sd_vdi_block_status(sd, vdi, 0, SIZE, note_extent, objects));
    map = dog("object map", "%s", which);
    for (int i = 0; i < OBJECTS; i++) {
        snprintf(line, sizeof line, "\n%08x ", (unsigned)i);
        CHECK((objects[i] == SD_EXTENT_HOLE) == !strstr(map, line));
        snprintf(line, sizeof line, "%08x %8" PRIx32, (unsigned)i, info.vdi_id);
        CHECK((objects[i] == SD_EXTENT_ALLOCATED) == has_line(map, line));
        own += objects[i] == SD_EXTENT_ALLOCATED ? OBJECT : 0;
        shared += objects[i] == SD_EXTENT_SHARED ? OBJECT : 0;
    }
    CHECK(info.allocated == own + shared);

    snprintf(line, sizeof line,
             "%c %s %" PRIu32 " %zu %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIx32 " %d %s 22", flag,
             info.name, info.snap_time_ns ? info.snap_id : 0, SIZE, own, shared,
             info.create_time_ns / 1000000000, info.vdi_id, info.copies, info.tag);
    if (!has_line(dog("list", "-r"), line))
        fail(__FILE__, __LINE__, "dog does not list: %s\nbut:\n%s", line, dog("list", "-r"));

    snprintf(line, sizeof line, "\"%" PRIx32 "\" -> \"%" PRIx32 "\";", info.parent_vdi_id,
             info.vdi_id);
    CHECK(strstr(dog("graph", "%s", ""), line));

    CHECK(strstr(dog("check", "%s", which), "finish check&repair"));
    CHECK(!strstr(dog("check", "%s", which), "fixed") && !strstr(dog("check", "%s", which), "lost"));

    /* Compared by the shell: a VDI can have zeros anywhere. */
    CHECK_CONTENT(sd, vdi, want, SIZE, 0);
    dog("read", "%s > \"$SD_TEST_FILE\" && cmp \"$SD_TEST_FILE\" \"$SD_TEST_WANT\"", which);
}

static void write_file(const char *variable, const void *data, size_t size)
{
    FILE *file = fopen(getenv(variable), "w");

    CHECK(file && fwrite(data, 1, size, file) == size);
    CHECK(fclose(file) == 0);
}

/* Has dog write a piece that the model holds. */
static void dog_writes(const char *name, size_t offset, size_t size, uint64_t seed)
{
    fill(model + offset, size, seed);
    write_file("SD_TEST_FILE", model + offset, size);
    dog("write", "%s %zu %zu < \"$SD_TEST_FILE\"", name, offset, size);
}

int main(void)
{
    static char file[] = "/tmp/dog-XXXXXX", want_file[] = "/tmp/dog-XXXXXX";
    const char *name = vdi_name("a"), *clone_name = vdi_name("clone"), *tree;
    sd_vdi_t vdi, first, second, clone;
    unsigned char *kept[2];
    char line[1024];
    int snapshots = 0;

    need_dog();
    sd = connect_to_server();
    need_object_sizes(sd); /* older ones list VDIs in another way */
    CHECK(mkstemp(file) >= 0 && mkstemp(want_file) >= 0);
    setenv("SD_TEST_FILE", file, 1);
    setenv("SD_TEST_WANT", want_file, 1);
    vdi = create_vdi(sd, name, SIZE);

    write_both(sd, vdi, model, 1000, 5000, 1);
    write_both(sd, vdi, model, 2 * OBJECT - 700, 1400, 2);
    write_both(sd, vdi, model, 4 * OBJECT, OBJECT, 3);
    OK(sd_vdi_discard(sd, vdi, 4 * OBJECT, OBJECT));
    memset(model + 4 * OBJECT, 0, OBJECT);
    write_file("SD_TEST_WANT", model, SIZE);
    check(vdi, '=', model);

    /* The library takes a snapshot; dog writes on. */
    OK(sd_snapshot_create(sd, vdi, "ours", &first));
    kept[0] = copy_of(model, SIZE);
    check(first, 's', kept[0]);
    dog_writes(name, 3 * OBJECT - 512, 1024, 4);
    dog_writes(name, 512, 1024, 5);
    OK(sd_vdi_refresh(sd, vdi));
    write_file("SD_TEST_WANT", model, SIZE);
    check(vdi, '=', model);

    /* dog takes a snapshot; the library writes on. */
    dog("snapshot", "-s theirs %s", name);
    kept[1] = copy_of(model, SIZE);
    write_both(sd, vdi, model, OBJECT, 100, 6);
    write_both(sd, vdi, model, 5 * OBJECT, 100, 7);
    second = open_snapshot(sd, name, "theirs");
    check(second, 's', kept[1]);
    write_file("SD_TEST_WANT", model, SIZE);
    check(vdi, '=', model);

    /* A clone of dog's snapshot. */
    OK(sd_vdi_clone(sd, second, clone_name, NULL, 0, 0, &clone));
    OK(sd_vdi_write(sd, clone, "clone", 5, 0, 0));
    memcpy(kept[1], "clone", 5);
    write_file("SD_TEST_WANT", kept[1], SIZE);
    check(clone, 'c', kept[1]);

    tree = dog("tree", "%s", "");
    snprintf(line, sizeof line, "\n%s---[", name);
    CHECK(tree = strstr(tree, line) ? strstr(tree, line) + 1 : strstr(tree, line + 1));
    for (; *tree && *tree != '\n'; tree++)
        snapshots += *tree == '[';
    CHECK(snapshots == 2 && count_snapshots(sd, name) == 2);

    OK(sd_vdi_close(&first));
    OK(sd_vdi_close(&second));
    OK(sd_vdi_close(&clone));
    OK(sd_vdi_close(&vdi));
    OK(sd_snapshot_delete(sd, name, "theirs", 0));
    dog("delete", "-s ours %s", name);
    dog("delete", "%s", name);
    OK(sd_vdi_delete(sd, clone_name));
    CHECK(!strstr(dog("list", "-r"), name));
    free(kept[0]);
    free(kept[1]);
    remove(file);
    remove(want_file);
    OK(sd_close(&sd));
}
