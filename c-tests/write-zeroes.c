/* write_zeroes zeroes exactly the range: parts of objects, whole ones, what is shared with a
 * snapshot, what was never written; and frees whole objects. */
#include "support.h"

#include <string.h>

#define SIZE (5 * OBJECT + 600)

static unsigned char model[SIZE], frozen[SIZE];

int main(void)
{
    static const struct { size_t offset, size; } ranges[] = {
        { 0, 1 }, { 4096, 4096 }, { OBJECT - 1, 2 }, { OBJECT, OBJECT },
        { 2 * OBJECT - 100, 2 * OBJECT + 200 }, { SIZE - 600, 600 }, { 77, 0 }, { 0, SIZE },
    };
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, SIZE), snapshot;

    for (int shared = 0; shared < 2; shared++) {
        write_both(sd, vdi, model, 0, 4 * OBJECT, (uint64_t)shared); /* the fifth is a hole */
        write_both(sd, vdi, model, SIZE - 600, 600, (uint64_t)shared + 10);
        if (shared) {
            OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
            memcpy(frozen, model, SIZE);
        }
        for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
            size_t offset = ranges[i].offset, size = ranges[i].size;

            OK(sd_vdi_write_zeroes(sd, vdi, (off_t)offset, size, i % 2 ? SD_WRITE_FUA : 0));
            memset(model + offset, 0, size);
            CHECK_CONTENT(sd, vdi, model, SIZE, 0);
        }
        CHECK(info_of(vdi).allocated == 0);
    }
    CHECK_CONTENT(sd, snapshot, frozen, SIZE, 0);
    write_both(sd, vdi, model, OBJECT - 5, 10, 20);
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_open(sd, name, &vdi));
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    OK(sd_close(&sd));
}
