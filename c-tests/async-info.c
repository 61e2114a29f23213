/* sd_vdi_aget_info() tells what sd_vdi_get_info() tells, and fills no more than the caller's
 * version of the structure, before the callback. */
#include "async.h"

#include <string.h>

int main(void)
{
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), 3 * OBJECT + 1), snapshot;
    struct sd_vdi_info info, want, longer[2];
    size_t short_size = offsetof(struct sd_vdi_info, io_min);

    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    want = info_of(vdi);
    OK(AWAIT(sd, sd_vdi_aget_info(vdi, &info, sizeof info, NOTED)));
    CHECK_BYTES(&info, &want, sizeof info);
    CHECK(info.size == 3 * OBJECT + 1 && info.allocated == OBJECT && !info.is_snapshot);
    want = info_of(snapshot);
    memset(&info, 0xa5, sizeof info);
    OK(AWAIT(sd, sd_vdi_aget_info(snapshot, &info, short_size, NOTED)));
    CHECK_BYTES(&info, &want, short_size);
    CHECK(info.is_snapshot && info.io_min == 0xa5a5a5a5 && info.max_io == 0xa5a5a5a5a5a5a5a5);
    memset(longer, 0xa5, sizeof longer);
    OK(AWAIT(sd, sd_vdi_aget_info(snapshot, longer, sizeof longer, NOTED)));
    CHECK_BYTES(longer, &want, sizeof want);
    CHECK_ZERO(longer + 1, sizeof *longer);
    OK(sd_close(&sd));
}
