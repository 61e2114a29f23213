/* Another client deletes the snapshot that links a handle's VDI to what the name stands for, and rolls
 * back: the handle goes on. */
#include "support.h"

int main(void)
{
    sd_t other = connect_to_server(), sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t theirs = create_vdi(other, name, 4 * OBJECT), vdi = open_second(sd, name), reader, first;
    char byte;

    OK(sd_vdi_open_ro(sd, name, &reader));
    OK(sd_vdi_write(sd, vdi, "1", 1, 0, 0));
    OK(sd_snapshot_create(other, theirs, "first", &first));
    OK(sd_snapshot_create(other, theirs, "second", NULL));
    OK(sd_vdi_write(sd, vdi, "2", 1, OBJECT, 0));
    OK(sd_snapshot_delete(other, name, "second", 0));
    OK(sd_snapshot_rollback(other, first));

    OK(sd_vdi_write(sd, vdi, "3", 1, 2 * OBJECT, 0));
    OK(sd_vdi_refresh(sd, vdi));
    OK(sd_vdi_refresh(sd, reader));
    OK(sd_vdi_read(other, theirs, &byte, 1, 2 * OBJECT));
    CHECK(byte == '3');
    OK(sd_vdi_read(sd, reader, &byte, 1, OBJECT));
    CHECK(byte == 0); /* rolled back */
    OK(sd_close(&sd));
    OK(sd_close(&other));
}
