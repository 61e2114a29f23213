/* A handle that only reads goes on with what this client makes of the VDI: by a rollback, and by
 * opening it for writing after another client has taken a snapshot of it. */
#include "support.h"

int main(void)
{
    sd_t sd = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, 2 * OBJECT), reader, snapshot, theirs;
    uint64_t size;
    char byte;

    OK(sd_snapshot_create(sd, vdi, "small", &snapshot));
    OK(sd_vdi_resize(sd, vdi, 3 * OBJECT));
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_open_ro(sd, name, &reader));
    OK(sd_snapshot_rollback(sd, snapshot));
    OK(sd_vdi_size(reader, &size));
    CHECK(size == 2 * OBJECT);
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, reader, &byte, 1, 2 * OBJECT));

    OK(sd_vdi_open(other, name, &theirs));
    OK(sd_snapshot_create(other, theirs, "theirs", NULL));
    OK(sd_vdi_close(&theirs));
    OK(sd_vdi_open(sd, name, &vdi));
    OK(sd_vdi_write(sd, vdi, "w", 1, 5, 0));
    OK(sd_vdi_read(sd, reader, &byte, 1, 5));
    CHECK(byte == 'w');
    OK(sd_close(&sd));
    OK(sd_close(&other));
}
