/* VDIs of other object sizes work like any other: I/O over their borders, snapshots and clones of
 * them, preallocation; options that are zero, short or absent are the cluster's defaults. */
#include "support.h"

#include <stdio.h>
#include <string.h>

#define WINDOW 20000 /* bytes around the first border between objects */

static unsigned char model[WINDOW], frozen[WINDOW];

static void works(sd_t sd, unsigned shift)
{
    struct sd_create_opts options = { .object_size = (uint64_t)1 << shift };
    size_t object = (size_t)options.object_size, size = 3 * object + 12345;
    size_t window = object - WINDOW / 2;
    char suffix[2][16];
    sd_vdi_t vdi, snapshot, clone;
    const char *name;

    snprintf(suffix[0], sizeof suffix[0], "%u", shift);
    snprintf(suffix[1], sizeof suffix[1], "%u-clone", shift);
    name = vdi_name(suffix[0]);
    OK(sd_vdi_create_ex(sd, name, size, &options, sizeof options, &vdi));
    CHECK(info_of(vdi).object_size == object && info_of(vdi).size == size);

    memset(model, 0, WINDOW);
    fill(model + 5000, 10000, shift);
    OK(sd_vdi_write(sd, vdi, model + 5000, 10000, (off_t)window + 5000, 0));
    OK(sd_vdi_write(sd, vdi, "end", 3, (off_t)size - 3, 0));
    CHECK_CONTENT(sd, vdi, "end", 3, size - 3);
    CHECK_CONTENT(sd, vdi, model, WINDOW, window);
    CHECK(info_of(vdi).allocated == 3 * object);

    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    memcpy(frozen, model, WINDOW);
    fill(model + 12000, 100, shift + 1);
    OK(sd_vdi_write(sd, vdi, model + 12000, 100, (off_t)window + 12000, 0));
    OK(sd_vdi_clone(sd, snapshot, vdi_name(suffix[1]), NULL, 0, 0, &clone));
    CHECK(info_of(vdi).object_size == object && info_of(clone).object_size == object);
    CHECK_CONTENT(sd, vdi, model, WINDOW, window);
    CHECK_CONTENT(sd, snapshot, frozen, WINDOW, window);
    CHECK_CONTENT(sd, clone, frozen, WINDOW, window);
    OK(sd_vdi_discard(sd, clone, (off_t)object, object));
    memset(frozen + WINDOW / 2, 0, WINDOW / 2);
    CHECK_CONTENT(sd, clone, frozen, WINDOW, window);
    OK(sd_vdi_close(&snapshot));
    OK(sd_vdi_close(&clone));
    OK(sd_vdi_close(&vdi));

    OK(sd_vdi_open(sd, name, &vdi));
    CHECK_CONTENT(sd, vdi, model, WINDOW, window);
    CHECK_CONTENT(sd, vdi, "end", 3, size - 3);
    OK(sd_vdi_close(&vdi));
}

int main(void)
{
    static const unsigned shifts[] = { 20, 21, 22, 24, 26 };
    sd_t sd = connect_to_server();
    struct sd_create_opts options = { .object_size = MiB, .copies = 1, .prealloc = true };
    struct {
        struct sd_create_opts known;
        char later[8];
    } longer = { .known = { .object_size = 2 * MiB } };
    sd_vdi_t vdi;
    uint64_t usual;

    need_object_sizes(sd);
    for (size_t i = 0; i < sizeof shifts / sizeof *shifts; i++)
        works(sd, shifts[i]);

    OK(sd_vdi_create_ex(sd, vdi_name("prealloc"), 5 * MiB, &options, sizeof options, &vdi));
    CHECK(info_of(vdi).allocated == 5 * MiB && info_of(vdi).copies == 1);
    CHECK_CONTENT(sd, vdi, NULL, 5 * MiB, 0);
    OK(sd_vdi_close(&vdi));

    OK(sd_vdi_create(sd, vdi_name("usual"), OBJECT, 0, false, &vdi));
    usual = info_of(vdi).object_size;
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_create_ex(sd, vdi_name("absent"), OBJECT, NULL, 0, &vdi));
    CHECK(info_of(vdi).object_size == usual && info_of(vdi).allocated == 0);
    OK(sd_vdi_close(&vdi));
    options.object_size = 0;
    OK(sd_vdi_create_ex(sd, vdi_name("short"), OBJECT, &options,
                        offsetof(struct sd_create_opts, prealloc), &vdi));
    CHECK(info_of(vdi).object_size == usual && info_of(vdi).allocated == 0);
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_create_ex(sd, vdi_name("long"), OBJECT, &longer.known, sizeof longer, NULL));
    longer.later[0] = 1; /* an option that this version does not know */
    FAILS(SD_RES_INVALID_PARMS,
          sd_vdi_create_ex(sd, vdi_name("later"), OBJECT, &longer.known, sizeof longer, NULL));
    OK(sd_close(&sd));
}
