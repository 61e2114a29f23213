/* sd_vdi_get_info tells what a VDI is, and fills no more than the caller's version of the
 * structure. */
#include "support.h"

#include <string.h>
#include <time.h>

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *second = vdi_name("b");
    size_t size = 5 * OBJECT + 4321, short_size = offsetof(struct sd_vdi_info, allocated);
    struct sd_vdi_info info, part, other;
    uint64_t now = (uint64_t)time(NULL) * 1000000000, day = 86400 * (uint64_t)1000000000;
    sd_vdi_t vdi = create_vdi(sd, name, size), vdi2;

    memset(&info, 0xa5, sizeof info);
    OK(sd_vdi_get_info(vdi, &info, sizeof info));
    CHECK_STR(info.name, name);
    CHECK_STR(info.tag, "");
    CHECK(info.size == size && info.allocated == 0);
    CHECK(info.object_size >= 512 && (info.object_size & (info.object_size - 1)) == 0);
    CHECK(info.vdi_id > 0 && info.vdi_id <= 0xffffff && info.parent_vdi_id == 0);
    CHECK(info.copies >= 1 && info.store_policy == 0);
    CHECK(!info.is_snapshot && info.snap_time_ns == 0);
    CHECK(info.io_min == 512 && info.io_opt == info.object_size);
    CHECK(info.max_io >= OBJECT && info.max_io % info.io_min == 0);
    /* The server's clock need not be ours, but it is Unix time, in nanoseconds. */
    CHECK(info.create_time_ns > now - day && info.create_time_ns < now + day);

    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    OK(sd_vdi_write(sd, vdi, "x", 1, (off_t)size - 1, 0));
    OK(sd_vdi_get_info(vdi, &info, sizeof info));
    CHECK(info.allocated == 2 * info.object_size);

    OK(sd_vdi_create(sd, second, OBJECT, 1, false, &vdi2));
    OK(sd_vdi_get_info(vdi2, &other, sizeof other));
    CHECK(other.copies == 1 && other.size == OBJECT && other.vdi_id != info.vdi_id);

    memset(&part, 0xa5, sizeof part);
    OK(sd_vdi_get_info(vdi, &part, short_size));
    CHECK_BYTES(&part, &info, short_size);
    for (size_t i = short_size; i < sizeof part; i++)
        CHECK(((unsigned char *)&part)[i] == 0xa5);
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_get_info(vdi, &part, 0));
    OK(sd_close(&sd));
}
