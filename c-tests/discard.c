/* A discarded range reads as zeros, its neighbours stay, and objects wholly inside it are freed:
 * owned and unallocated ones, parts of them, the short one at the VDI's end. */
#include "support.h"

#include <string.h>

#define SIZE (6 * OBJECT + 5000)

static unsigned char model[SIZE];

static void discard(sd_t sd, sd_vdi_t vdi, size_t offset, size_t size)
{
    OK(sd_vdi_discard(sd, vdi, (off_t)offset, size));
    memset(model + offset, 0, size);
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
}

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, SIZE);
    size_t full;

    write_both(sd, vdi, model, 0, 5 * OBJECT, 1); /* the sixth is never allocated */
    write_both(sd, vdi, model, 6 * OBJECT, 5000, 2);
    full = info_of(vdi).allocated;

    discard(sd, vdi, OBJECT, OBJECT); /* one object */
    CHECK(info_of(vdi).allocated == full - OBJECT);
    discard(sd, vdi, OBJECT, OBJECT); /* again */
    discard(sd, vdi, 5 * OBJECT, OBJECT);
    CHECK(info_of(vdi).allocated == full - OBJECT);
    discard(sd, vdi, 100, 1000); /* parts of objects */
    discard(sd, vdi, 4 * OBJECT - 512, 512);
    discard(sd, vdi, 5 * OBJECT + 10, 10);
    CHECK(info_of(vdi).allocated == full - OBJECT);
    discard(sd, vdi, 3 * OBJECT - 7, OBJECT + 20); /* an end, one whole, a begin */
    CHECK(info_of(vdi).allocated == full - 2 * OBJECT);
    discard(sd, vdi, 6 * OBJECT, 5000); /* up to the VDI's end, which is a whole object too */
    CHECK(info_of(vdi).allocated < full - 2 * OBJECT);
    discard(sd, vdi, 77, 0);

    write_both(sd, vdi, model, OBJECT + 3, 1000, 3);
    write_both(sd, vdi, model, 6 * OBJECT + 3, 100, 4);
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    discard(sd, vdi, 0, SIZE);
    CHECK(info_of(vdi).allocated == 0);
    write_both(sd, vdi, model, 2 * OBJECT - 100, 200, 5);

    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_open(sd, name, &vdi));
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    OK(sd_close(&sd));
}
