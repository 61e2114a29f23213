/* A submission that is refused, for its arguments or for the limit, does nothing and never calls
 * back. */
#include "async.h"

#define NONE(...) FAILS(SD_RES_INVALID_PARMS, __VA_ARGS__)

int main(void)
{
    sd_t sd = connect_to_server(), closed = connect_to_server(), copy = closed;
    struct administration on = prepare_administration(sd, TEST_NAME, 0), bad = on;
    sd_vdi_t *out = &on.out, none = NULL;
    struct sd_create_opts opts = { .reserved = { 1 } };
    const char *name = on.name;
    size_t limit, used;
    char byte;

    OK(sd_close(&closed));
    for (size_t i = 0; i < administration_call_count; i++)
        NONE(administration_calls[i].submit(&on, NULL, &noted));
    NONE(sd_aclose(&sd, NULL, &noted));

    /* The limit. */
    OK(sd_get_buffer_limit(sd, &limit));
    OK(sd_set_buffer_limit(sd, 0));
    for (size_t i = 0; i < administration_call_count; i++)
        expect_result(__FILE__, __LINE__, administration_calls[i].name,
                      administration_calls[i].submit(&on, NOTED), SD_RES_NO_MEM);
    FAILS(SD_RES_NO_MEM, sd_aclose(&sd, NOTED));
    CHECK(sd && on.vdi);
    OK(sd_set_buffer_limit(sd, limit));

    /* Handles. */
    bad.sd = copy;
    bad.vdi = (sd_vdi_t)&byte;
    bad.snapshot = (sd_vdi_t)&byte;
    for (size_t i = 0; i < administration_call_count; i++)
        NONE(administration_calls[i].submit(&bad, NOTED));
    NONE(sd_aclose(&copy, NOTED));
    NONE(sd_aclose(&closed, NOTED));
    NONE(sd_aclose(NULL, NOTED));
    NONE(sd_vdi_aclose(NULL, NOTED));
    NONE(sd_vdi_aclose(&none, NOTED));
    CHECK(copy && bad.vdi == (sd_vdi_t)&byte);

    /* Everything else. */
    NONE(sd_vdi_aopen(sd, NULL, out, NOTED));
    NONE(sd_vdi_aopen(sd, "", out, NOTED));
    NONE(sd_vdi_aopen(sd, name, NULL, NOTED));
    NONE(sd_vdi_aopen_ro(sd, "", out, NOTED));
    NONE(sd_vdi_aopen_ro(sd, name, NULL, NOTED));
    NONE(sd_vdi_acreate(sd, NULL, OBJECT, 0, false, out, NOTED));
    NONE(sd_vdi_acreate(sd, "", OBJECT, 0, false, out, NOTED));
    NONE(sd_vdi_acreate(sd, on.new_name, OBJECT, -1, false, out, NOTED));
    NONE(sd_vdi_acreate_ex(sd, NULL, OBJECT, NULL, 0, out, NOTED));
    NONE(sd_vdi_acreate_ex(sd, on.new_name, OBJECT, &opts, sizeof opts, out, NOTED));
    NONE(sd_vdi_adelete(sd, NULL, NOTED));
    NONE(sd_vdi_aclone(sd, on.snapshot, NULL, NULL, 0, 0, out, NOTED));
    NONE(sd_vdi_aclone(sd, on.snapshot, on.new_name, NULL, -1, 0, out, NOTED));
    NONE(sd_vdi_aclone(sd, on.snapshot, on.new_name, NULL, 0, 1000, out, NOTED));
    NONE(sd_vdi_aget_info(on.vdi, NULL, sizeof on.info, NOTED));
    NONE(sd_vdi_aget_info(on.vdi, &on.info, 0, NOTED));
    NONE(sd_vdi_ablock_status(sd, on.vdi, 0, OBJECT, NULL, NOTED));
    NONE(sd_vdi_asetattr(sd, name, NULL, "", 0, NOTED));
    NONE(sd_vdi_asetattr(sd, name, "", "", 0, NOTED));
    NONE(sd_vdi_asetattr(sd, name, "key", NULL, 1, NOTED));
    NONE(sd_vdi_asetattr(sd, name, "key", "", 65537, NOTED));
    NONE(sd_vdi_agetattr(sd, name, "key", NULL, 1, NOTED));
    NONE(sd_vdi_agetattr(sd, NULL, "key", on.value, sizeof on.value, NOTED));
    NONE(sd_vdi_adelattr(sd, name, NULL, NOTED));
    NONE(sd_snapshot_acreate(sd, on.vdi, NULL, out, NOTED));
    NONE(sd_snapshot_aopen(sd, name, NULL, 0, out, NOTED));
    NONE(sd_snapshot_aopen(sd, name, "tag", 0, NULL, NOTED));
    NONE(sd_snapshot_adelete(sd, name, "", 0, NOTED));

    CHECK(is_untouched(&on));
    OK(sd_get_buffer_usage(sd, &used));
    CHECK(used == 0);
    OK(AWAIT(sd, sd_vdi_aflush(sd, on.vdi, NOTED))); /* before it anything else would have come */
    CHECK(noted.calls == 1);
    OK(sd_vdi_getattr(sd, name, "key", on.value, sizeof on.value));
    OK(sd_close(&sd));
    CHECK(noted.calls == 1);
}
