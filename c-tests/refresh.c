/* A reader in another sd_t sees new objects, rewritten ones after a snapshot, and the new size
 * after sd_vdi_refresh; a refresh without cause changes nothing. */
#include "support.h"

#include <string.h>

#define SIZE (3 * OBJECT)

static unsigned char model[2 * SIZE];

int main(void)
{
    sd_t writer = connect_to_server(), reader = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, SIZE), seen = open_second(reader, name);

    CHECK_CONTENT(reader, seen, NULL, SIZE, 0);
    OK(sd_vdi_refresh(reader, seen));
    CHECK_CONTENT(reader, seen, NULL, SIZE, 0);
    write_both(writer, vdi, model, OBJECT - 100, 200, 1);
    OK(sd_vdi_refresh(reader, seen));
    CHECK_CONTENT(reader, seen, model, SIZE, 0);

    OK(sd_snapshot_create(writer, vdi, "tag", NULL));
    write_both(writer, vdi, model, OBJECT - 50, 100, 2);
    OK(sd_vdi_refresh(reader, seen));
    CHECK_CONTENT(reader, seen, model, SIZE, 0);
    CHECK(!info_of(seen).is_snapshot);

    OK(sd_vdi_resize(writer, vdi, 2 * SIZE));
    write_both(writer, vdi, model, 2 * SIZE - 10, 10, 3);
    OK(sd_vdi_discard(writer, vdi, 0, OBJECT));
    memset(model, 0, OBJECT);
    OK(sd_vdi_refresh(reader, seen));
    CHECK_CONTENT(reader, seen, model, 2 * SIZE, 0);
    OK(sd_vdi_refresh(writer, vdi));
    CHECK_CONTENT(writer, vdi, model, 2 * SIZE, 0);
    write_both(writer, vdi, model, 0, 10, 4);
    CHECK_CONTENT(writer, vdi, model, 2 * SIZE, 0);
    OK(sd_close(&writer));
    OK(sd_close(&reader));
}
