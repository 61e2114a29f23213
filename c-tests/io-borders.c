/* Writes and reads that start, end or lie across the borders of objects, at any alignment, touch
 * exactly their own bytes. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

#define SIZE (4 * OBJECT + 1234)

int main(void)
{
    static const size_t starts[] = { 0,          1,          511,        OBJECT - 513, OBJECT - 1,
                                     OBJECT,     OBJECT + 1, 2 * OBJECT - 7, SIZE - 1235 };
    static const size_t lengths[] = { 1, 2, 512, 4097, 1235, OBJECT, OBJECT + 1, 2 * OBJECT + 15 };
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), SIZE);
    unsigned char *want = calloc(1, SIZE), *got = poisoned(SIZE + 1);
    uint64_t seed = 1;

    for (size_t s = 0; s < sizeof starts / sizeof *starts; s++) {
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
            size_t start = starts[s], length = lengths[l];

            if (start + length > SIZE)
                continue;
            fill(want + start, length, seed++);
            OK(sd_vdi_write(sd, vdi, want + start, length, (off_t)start, 0));
            memset(got, 0xa5, length + 1);
            OK(sd_vdi_read(sd, vdi, got, length, (off_t)start));
            CHECK_BYTES(got, want + start, length);
            CHECK(got[length] == 0xa5);
        }
    }
    OK(sd_vdi_read(sd, vdi, got, SIZE, 0));
    CHECK_BYTES(got, want, SIZE);
    free(want);
    free(got);
    OK(sd_close(&sd));
}
