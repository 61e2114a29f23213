/* A write with SD_WRITE_FUA is there, like any other, once it has returned: read back, and after
 * the server was killed. */
#include "support.h"

#include <sys/uio.h>

#define SIZE (2 * OBJECT)

static unsigned char model[SIZE];

static void write_fua(sd_t sd, sd_vdi_t vdi, size_t offset, size_t size, uint64_t seed)
{
    struct iovec halves[] = { { model + offset, size / 2 },
                              { model + offset + size / 2, size - size / 2 } };

    fill(model + offset, size, seed);
    if (seed % 2)
        OK(sd_vdi_write(sd, vdi, model + offset, size, (off_t)offset, SD_WRITE_FUA));
    else
        OK(sd_vdi_writev(sd, vdi, halves, 2, (off_t)offset, SD_WRITE_FUA));
}

static void run(sd_t sd, const char *name, struct lamb *lamb)
{
    sd_vdi_t vdi = create_vdi(sd, name, SIZE);

    write_fua(sd, vdi, 100, 1000, 1);             /* allocates */
    write_fua(sd, vdi, 700, 1000, 2);             /* overwrites */
    write_fua(sd, vdi, OBJECT - 5000, 10000, 3);  /* both */
    OK(sd_snapshot_create(sd, vdi, "tag", NULL));
    write_fua(sd, vdi, 50, 100, 4);               /* copies */
    OK(sd_vdi_write(sd, vdi, NULL, 0, 0, SD_WRITE_FUA));
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    if (lamb) {
        lamb_kill(lamb);
        lamb_restart(lamb);
        CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    }
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, "x", 1, 0, SD_WRITE_FUA | 0x4000));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, "x", 1, (off_t)SIZE, SD_WRITE_FUA));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, "x", 1, 0, -1));
    OK(sd_close(&sd));
}

int main(void)
{
    struct lamb *lamb = lamb_start();
    sd_t sd;

    run(connect_to_server(), vdi_name("a"), NULL);
    OK(sd_init_unix(lamb->unix_socket, &sd));
    run(sd, vdi_name("b"), lamb);
}
