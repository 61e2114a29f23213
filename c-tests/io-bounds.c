/* Whatever reaches beyond the end, or before the beginning, is refused whole; a length of zero
 * transfers nothing and is fine anywhere inside; unknown flags are refused. */
#include "support.h"

#include <string.h>

#define SIZE (OBJECT + 1000)

int main(void)
{
    static const struct { size_t size; off_t offset; } beyond[] = {
        { 1, SIZE },      { 2, SIZE - 1 },     { SIZE + 1, 0 },       { 1, INT64_MAX },
        { 1, -1 },        { 4096, -4096 },     { SIZE_MAX, 0 },       { SIZE_MAX, SIZE - 1 },
        { 1, INT64_MIN }, { SIZE_MAX / 2, 1 }, { SIZE_MAX - 10, 11 }, { 1, (off_t)1 << 54 },
        { 0, SIZE + 1 },  { 0, -1 },
    };
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), SIZE);
    static char buffer[SIZE + 1], before[SIZE], after[SIZE];

    fill(before, SIZE, 1);
    OK(sd_vdi_write(sd, vdi, before, SIZE, 0, 0));
    memset(buffer, 0xa5, sizeof buffer);
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
        int read = sd_vdi_read(sd, vdi, buffer, beyond[i].size, beyond[i].offset);
        int write = sd_vdi_write(sd, vdi, buffer, beyond[i].size, beyond[i].offset, 0);
        if (read != SD_RES_INVALID_PARMS || write != SD_RES_INVALID_PARMS)
            fail(__FILE__, __LINE__, "%zu bytes at %lld: read gave %s, write gave %s",
                 beyond[i].size, (long long)beyond[i].offset, sd_strerror(read),
                 sd_strerror(write));
    }
    for (size_t i = 0; i < sizeof buffer; i++)
        CHECK((unsigned char)buffer[i] == 0xa5);

    for (int bit = 4; bit < 32; bit++) /* the lower ones are, or may become, flags */
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, buffer, 1, 0, (int)(1u << bit)));

    OK(sd_vdi_read(sd, vdi, buffer, 0, 0));
    OK(sd_vdi_read(sd, vdi, buffer, 0, SIZE));
    OK(sd_vdi_write(sd, vdi, buffer, 0, SIZE - 1, 0));
    OK(sd_vdi_write(sd, vdi, buffer, 0, SIZE, 0));
    CHECK((unsigned char)buffer[0] == 0xa5);

    OK(sd_vdi_read(sd, vdi, after, SIZE, 0));
    CHECK_BYTES(after, before, SIZE);
    OK(sd_close(&sd));
}
