/* Another client discards objects that a writer knows as its own, and closes: what the writer
 * writes there afterwards is kept, amid zeros; what it reads is zeros. */
#include "support.h"

#define ROUNDS 40
#define PIECE 1000

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, 3 * OBJECT), seen;
    unsigned char data[PIECE];

    need_removals();
    for (uint64_t round = 0; round < ROUNDS; round++) {
        size_t object = round % 3 * OBJECT;

        fill(data, PIECE, round);
        OK(sd_vdi_write(writer, vdi, data, PIECE, (off_t)object, 0));
        seen = open_second(other, name);
        OK(sd_vdi_discard(other, seen, (off_t)object, OBJECT));
        /* Servers remove the object some time after the discard; closing waits for that. */
        OK(sd_vdi_close(&seen));
        if (round % 4 == 0)
            CHECK_CONTENT(writer, vdi, NULL, PIECE, object);
        OK(sd_vdi_write(writer, vdi, data, PIECE, (off_t)object + 5000, 0));
        CHECK_CONTENT(writer, vdi, data, PIECE, object + 5000);
        CHECK_CONTENT(writer, vdi, NULL, 5000, object);
        seen = open_second(other, name);
        CHECK_CONTENT(other, seen, data, PIECE, object + 5000);
        CHECK_CONTENT(other, seen, NULL, 5000, object);
        OK(sd_vdi_close(&seen));
    }
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
