/* What is written right after a discard is not lost, however often: one object again and again,
 * many at once, and from a handle opened after the discard. */
#include "support.h"

#include <string.h>

#define ROUNDS 250
#define OBJECTS 60
#define PIECE 512

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    struct sd_create_opts options = { .object_size = MiB };
    unsigned char data[PIECE];
    sd_vdi_t vdi;

    need_object_sizes(sd);
    OK(sd_vdi_create_ex(sd, name, OBJECTS * MiB, &options, sizeof options, &vdi));
    for (uint64_t round = 0; round < ROUNDS; round++) {
        size_t object = round % 3 * MiB, offset = object + round % 5 * 1000;

        fill(data, PIECE, round);
        OK(sd_vdi_write(sd, vdi, data, PIECE, (off_t)offset, 0));
        OK(sd_vdi_discard(sd, vdi, (off_t)object, MiB));
        OK(sd_vdi_write(sd, vdi, data, PIECE, (off_t)offset, 0));
        CHECK_CONTENT(sd, vdi, data, PIECE, offset);
        if (round % 50 == 0) {
            OK(sd_vdi_discard(sd, vdi, (off_t)object, MiB));
            OK(sd_vdi_close(&vdi));
            OK(sd_vdi_open(sd, name, &vdi));
            OK(sd_vdi_write(sd, vdi, data, PIECE, (off_t)offset, 0));
        }
    }
    for (uint64_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < OBJECTS; i++) {
            fill(data, PIECE, i);
            OK(sd_vdi_write(sd, vdi, data, PIECE, (off_t)(i * MiB), 0));
        }
        OK(sd_vdi_discard(sd, vdi, 0, OBJECTS * MiB));
        for (size_t i = 0; i < OBJECTS; i++) {
            fill(data, PIECE, i + 1000 * round);
            OK(sd_vdi_write(sd, vdi, data, PIECE, (off_t)(i * MiB + i), 0));
        }
        for (size_t i = 0; i < OBJECTS; i++) {
            fill(data, PIECE, i + 1000 * round);
            CHECK_CONTENT(sd, vdi, data, PIECE, i * MiB + i);
            CHECK_CONTENT(sd, vdi, NULL, i, i * MiB);
            CHECK_CONTENT(sd, vdi, NULL, 4096, i * MiB + i + PIECE);
        }
    }
    OK(sd_close(&sd));
}
