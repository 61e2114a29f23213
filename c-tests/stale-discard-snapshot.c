/* A writer that does not know of another client's snapshot and discards or zeroes takes nothing
 * from the snapshot: neither objects that were its own, nor those that were shared already. */
#include "support.h"

#include <string.h>

#define SIZE (4 * OBJECT)

static unsigned char model[SIZE], frozen[SIZE];

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, SIZE), seen = open_second(other, name), snapshot;

    for (int zeroes = 0; zeroes < 2; zeroes++) {
        write_both(writer, vdi, model, 0, 3 * OBJECT, 1);
        OK(sd_snapshot_create(writer, vdi, "base", NULL));
        write_both(writer, vdi, model, 100, 1000, 2); /* object 0 is its own, 1 and 2 are shared */
        write_both(writer, vdi, model, OBJECT + 100, 1000, 3);
        memcpy(frozen, model, SIZE);
        for (size_t object = 0; object < 4; object++) {
            OK(sd_snapshot_create(other, seen, "tag", &snapshot));
            if (zeroes)
                OK(sd_vdi_write_zeroes(writer, vdi, (off_t)(object * OBJECT), OBJECT, 0));
            else
                OK(sd_vdi_discard(writer, vdi, (off_t)(object * OBJECT), OBJECT));
            memset(model + object * OBJECT, 0, OBJECT);
            CHECK_CONTENT(other, snapshot, frozen, SIZE, 0);
            CHECK_CONTENT(writer, vdi, model, SIZE, 0);
            OK(sd_vdi_close(&snapshot));
            OK(sd_snapshot_delete(other, name, "tag", 0));
            CHECK_CONTENT(writer, vdi, model, SIZE, 0);
            memcpy(frozen, model, SIZE);
        }
        OK(sd_snapshot_delete(other, name, "base", 0));
    }
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
