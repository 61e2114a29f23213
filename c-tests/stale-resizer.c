/* A client that resizes a VDI on an outdated idea of its objects, which another one has allocated,
 * discarded or copied since, zeroes what it cuts off all the same, and does not fail. */
#include "support.h"

#include <string.h>

#define SIZE (3 * OBJECT)
#define CUT (OBJECT + 1000)

static unsigned char model[SIZE];

static void cut(sd_t other, sd_vdi_t seen, sd_t writer, sd_vdi_t vdi)
{
    OK(sd_vdi_resize(other, seen, CUT));
    OK(sd_vdi_resize(other, seen, SIZE));
    memset(model + CUT, 0, SIZE - CUT);
    OK(sd_vdi_refresh(writer, vdi));
    CHECK_CONTENT(writer, vdi, model, SIZE, 0);
}

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, SIZE), seen = open_second(other, name);

    CHECK_CONTENT(other, seen, NULL, SIZE, 0); /* knows that nothing is there */
    write_both(writer, vdi, model, OBJECT, 2 * OBJECT, 1);
    cut(other, seen, writer, vdi);

    write_both(writer, vdi, model, OBJECT, 2 * OBJECT, 2);
    CHECK_CONTENT(other, seen, model + OBJECT, 1, OBJECT);
    OK(sd_snapshot_create(writer, vdi, "tag", NULL));
    write_both(writer, vdi, model, OBJECT + 500, 1000, 3);
    cut(other, seen, writer, vdi);

    write_both(writer, vdi, model, OBJECT, 2 * OBJECT, 4);
    OK(sd_vdi_refresh(other, seen));
    CHECK_CONTENT(other, seen, model, SIZE, 0); /* knows the objects */
    OK(sd_vdi_discard(writer, vdi, (off_t)OBJECT, 2 * OBJECT));
    memset(model + OBJECT, 0, 2 * OBJECT);
    cut(other, seen, writer, vdi);
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
