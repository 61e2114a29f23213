/* Another client grows a VDI after a snapshot of it, and by rolling it back to a larger one: its
 * writer, which knows neither, writes and reads beyond the end it knew. */
#include "support.h"

#define SMALL OBJECT
#define LARGE (3 * OBJECT)

static unsigned char model[LARGE];

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(writer, name, LARGE), seen = open_second(other, name), snapshot;

    for (int grown_by = 0; grown_by < 4; grown_by++) {
        OK(sd_vdi_refresh(writer, vdi));
        write_both(writer, vdi, model, LARGE - 1000, 1000, 1 + (uint64_t)grown_by);
        OK(sd_vdi_refresh(other, seen));
        OK(sd_snapshot_create(other, seen, "large", &snapshot));
        OK(sd_vdi_resize(writer, vdi, SMALL));
        write_both(writer, vdi, model, SMALL - 100, 100, 10 + (uint64_t)grown_by);
        if (grown_by % 2) { /* a rollback */
            OK(sd_snapshot_rollback(other, snapshot));
            CHECK_CONTENT(other, seen, model + LARGE - 1000, 1000, LARGE - 1000);
        } else {
            OK(sd_snapshot_create(other, seen, "small", NULL));
            OK(sd_vdi_resize(other, seen, LARGE));
        }
        if (grown_by < 2)
            write_both(writer, vdi, model, LARGE - 2000, 1000, 20 + (uint64_t)grown_by);
        CHECK_CONTENT(writer, vdi, grown_by % 2 ? model + LARGE - 1000 : NULL, 1000,
                      LARGE - 1000);
        OK(sd_vdi_close(&snapshot));
        OK(sd_snapshot_delete(other, name, "large", 0));
        if (grown_by % 2 == 0)
            OK(sd_snapshot_delete(other, name, "small", 0));
    }
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
