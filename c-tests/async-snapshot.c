/* The life of a snapshot without blocking: taken beside writes, opened, read, rolled back to,
 * deleted; errors come by the callback. */
#include "async.h"

#include <string.h>

#define WRITES 20

static unsigned char model[3 * OBJECT], frozen[3 * OBJECT];

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    struct noted writes[WRITES] = { { 0 } };
    sd_vdi_t vdi = create_vdi(sd, name, sizeof model), made, opened, none = NULL;

    write_both(sd, vdi, model, 0, 2 * OBJECT, 1);
    memcpy(frozen, model, sizeof model);
    OK(AWAIT(sd, sd_snapshot_acreate(sd, vdi, "first", &made, NOTED)));
    CHECK(info_of(made).is_snapshot);
    CHECK_STR(info_of(made).tag, "first");
    write_both(sd, vdi, model, 100, 2 * OBJECT, 2);
    CHECK_CONTENT(sd, made, frozen, sizeof frozen, 0);
    OK(AWAIT(sd, sd_snapshot_aopen(sd, name, "first", 0, &opened, NOTED)));
    CHECK_CONTENT(sd, opened, frozen, sizeof frozen, 0);

    /* Writes that are on their way are lost nowhere. */
    for (int i = 0; i < WRITES; i++) {
        size_t offset = (size_t)i * 100000;

        fill(model + offset, 1000, (uint64_t)i);
        OK(sd_vdi_awrite(sd, vdi, model + offset, 1000, (off_t)offset, 0, note, &writes[i]));
    }
    OK(AWAIT(sd, sd_snapshot_acreate(sd, vdi, "second", NULL, NOTED)));
    for (int i = 0; i < WRITES; i++) {
        while (!writes[i].calls)
            OK(sd_wait(sd, -1));
        OK(writes[i].result);
    }
    CHECK_CONTENT(sd, vdi, model, sizeof model, 0);
    FAILS(SD_RES_VDI_EXIST, AWAIT(sd, sd_snapshot_acreate(sd, vdi, "first", &none, NOTED)));
    FAILS(SD_RES_INVALID_PARMS, AWAIT(sd, sd_snapshot_acreate(sd, vdi, "", &none, NOTED)));
    FAILS(SD_RES_READONLY, AWAIT(sd, sd_snapshot_acreate(sd, made, "third", &none, NOTED)));
    FAILS(SD_RES_NO_TAG, AWAIT(sd, sd_snapshot_aopen(sd, name, "none", 0, &none, NOTED)));
    FAILS(SD_RES_NO_VDI, AWAIT(sd, sd_snapshot_aopen(sd, vdi_name("b"), "x", 0, &none, NOTED)));
    CHECK(!none);

    OK(AWAIT(sd, sd_snapshot_arollback(sd, opened, NOTED)));
    CHECK_CONTENT(sd, vdi, frozen, sizeof frozen, 0);
    FAILS(SD_RES_INVALID_PARMS, AWAIT(sd, sd_snapshot_arollback(sd, vdi, NOTED)));

    FAILS(SD_RES_VDI_LOCKED, AWAIT(sd, sd_snapshot_adelete(sd, name, "first", 0, NOTED)));
    OK(AWAIT(sd, sd_vdi_aclose(&made, NOTED)));
    OK(AWAIT(sd, sd_vdi_aclose(&opened, NOTED)));
    OK(AWAIT(sd, sd_snapshot_adelete(sd, name, "first", 0, NOTED)));
    OK(AWAIT(sd, sd_snapshot_adelete(sd, name, "second", 0, NOTED)));
    FAILS(SD_RES_NO_TAG, AWAIT(sd, sd_snapshot_adelete(sd, name, "second", 0, NOTED)));
    CHECK(count_snapshots(sd, name) == 0);
    CHECK_CONTENT(sd, vdi, frozen, sizeof frozen, 0);
    OK(sd_close(&sd));
}
