/* sd_vdi_open_ro() opens a VDI whoever has it locked, and keeps nobody from the lock; what it gives
 * reads and does not write. It sees what its own sd_t writes at once, what another one writes after
 * sd_vdi_refresh(). */
#include "support.h"

#include <stdlib.h>
#include <string.h>

#define SIZE (3 * OBJECT)

static unsigned char model[SIZE];

static void refuses_to_write(sd_t sd, sd_vdi_t vdi)
{
    sd_vdi_t none = NULL;

    FAILS(SD_RES_READONLY, sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    FAILS(SD_RES_READONLY, sd_vdi_write_zeroes(sd, vdi, 0, 1, 0));
    FAILS(SD_RES_READONLY, sd_vdi_discard(sd, vdi, 0, OBJECT));
    FAILS(SD_RES_READONLY, sd_vdi_resize(sd, vdi, 2 * SIZE));
    FAILS(SD_RES_READONLY, sd_snapshot_create(sd, vdi, "mine", &none));
    CHECK(!none);
    OK(sd_vdi_flush(sd, vdi));
}

static void run(sd_t writer, sd_t reader, const char *name, bool locks)
{
    sd_vdi_t vdi = create_vdi(writer, name, SIZE), none = NULL, seen, beside;

    FAILS(SD_RES_NO_VDI, sd_vdi_open_ro(reader, vdi_name("none"), &none));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_open_ro(reader, "", &none));
    CHECK(!none);
    write_both(writer, vdi, model, 0, 1000, 1);
    OK(sd_vdi_open_ro(reader, name, &seen));
    OK(sd_vdi_open_ro(writer, name, &beside));
    CHECK_CONTENT(reader, seen, model, SIZE, 0);
    CHECK_CONTENT(writer, beside, model, SIZE, 0);
    refuses_to_write(reader, seen);
    refuses_to_write(writer, beside);

    write_both(writer, vdi, model, 500, 2 * OBJECT, 2);
    CHECK_CONTENT(writer, beside, model, SIZE, 0);
    OK(sd_vdi_refresh(reader, seen));
    CHECK_CONTENT(reader, seen, model, SIZE, 0);
    OK(sd_snapshot_create(writer, vdi, "tag", NULL));
    write_both(writer, vdi, model, 700, 2 * OBJECT, 3);
    CHECK_CONTENT(writer, beside, model, SIZE, 0);
    OK(sd_vdi_refresh(reader, seen));
    CHECK_CONTENT(reader, seen, model, SIZE, 0);
    refuses_to_write(reader, seen);
    CHECK(!info_of(seen).is_snapshot && info_of(seen).vdi_id == info_of(vdi).vdi_id);

    /* Its end is none of the writer's. */
    if (locks)
        FAILS(SD_RES_VDI_LOCKED, sd_vdi_open(reader, name, &none));
    OK(sd_vdi_close(&seen));
    if (locks)
        FAILS(SD_RES_VDI_LOCKED, sd_vdi_open(reader, name, &none));
    OK(sd_vdi_close(&vdi));
    CHECK_CONTENT(writer, beside, model, SIZE, 0);
    OK(sd_vdi_open(writer, name, &vdi));
    write_both(writer, vdi, model, 2 * OBJECT, OBJECT, 4);
    OK(sd_snapshot_create(writer, vdi, "another", NULL));
    write_both(writer, vdi, model, 100, 100, 5);
    OK(sd_vdi_close(&vdi));
    CHECK_CONTENT(writer, beside, model, SIZE, 0);
    OK(sd_vdi_open(reader, name, &vdi)); /* what still reads has no lock */
    OK(sd_vdi_close(&vdi));
    FAILS(SD_RES_VDI_LOCKED, sd_vdi_delete(writer, name));
    OK(sd_vdi_close(&beside));
    OK(sd_vdi_delete(writer, name));
    OK(sd_close(&writer));
    OK(sd_close(&reader));
}

/* What was made anew under the name is another VDI. */
static void recreate(const char *name)
{
    sd_t sd = connect_to_server(), other = connect_to_server();
    sd_vdi_t vdi = create_vdi(other, name, OBJECT), seen, writer;
    char data[4];
    uint32_t id = info_of(vdi).vdi_id;

    OK(sd_vdi_write(other, vdi, "old", 4, 0, 0));
    OK(sd_vdi_open_ro(sd, name, &seen));
    CHECK_CONTENT(sd, seen, "old", 4, 0);
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_delete(other, name));
    OK(sd_vdi_create(other, name, OBJECT, 0, false, NULL));
    OK(sd_vdi_open(sd, name, &writer));
    OK(sd_vdi_write(sd, writer, "new", 4, 0, 0));
    if (info_of(writer).vdi_id == id) { /* recycled: it is the other one now */
        CHECK_CONTENT(sd, seen, "new", 4, 0);
        OK(sd_close(&sd));
        OK(sd_close(&other));
        return;
    }
    if (getenv("SD_TEST_KEEPS_OBJECTS")) { /* what was deleted is still there to be read */
        OK(sd_vdi_close(&writer));
    } else {
        FAILS(SD_RES_NO_VDI, sd_vdi_read(sd, seen, data, 4, 0));
        OK(sd_vdi_close(&writer));
        FAILS(SD_RES_NO_VDI, sd_vdi_read(sd, seen, data, 4, 0));
    }
    FAILS(SD_RES_NO_VDI, sd_vdi_refresh(sd, seen));
    OK(sd_close(&sd));
    OK(sd_close(&other));
}

int main(void)
{
    struct lamb *lamb = lamb_start_with_locks();
    sd_t writer, reader;

    run(connect_to_server(), connect_to_server(), vdi_name("a"), false);
    recreate(vdi_name("c"));
    memset(model, 0, SIZE);
    OK(sd_init(lamb->tcp, &writer));
    OK(sd_init(lamb->tcp, &reader));
    run(writer, reader, vdi_name("b"), true);
}
