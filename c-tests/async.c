#include "async.h"

#include <stdio.h>
#include <string.h>

struct noted noted;

void note(sd_t sd, int result, void *opaque)
{
    struct noted *noted = opaque;

    noted->calls++;
    noted->result = result;
    noted->sd = sd;
}

int await(const char *file, int line, const char *call, sd_t sd, int calls_before, int submitted)
{
    expect_result(file, line, call, submitted, SD_RES_SUCCESS);
    if (noted.calls != calls_before)
        fail(file, line, "%s called back before it returned", call);
    while (noted.calls == calls_before)
        expect_result(file, line, "sd_wait", sd_wait(sd, -1), SD_RES_SUCCESS);
    if (noted.calls != calls_before + 1)
        fail(file, line, "%s called back more than once", call);
    if (noted.sd != sd)
        fail(file, line, "the callback of %s was given another sd_t", call);
    return noted.result;
}

static char untouched; /* an address that no handle has */

/* Strings are the library's only as long as the call: these are overwritten after it. */
static char *passing(char buffer[300], const char *text)
{
    snprintf(buffer, 300, "%s", text);
    return buffer;
}

#define CALL(function, ...)                                                                       \
    static int call_##function(struct administration *on, sd_callback_fn *fn, void *opaque)       \
    {                                                                                             \
        char first[300], second[300];                                                             \
        int result;                                                                               \
                                                                                                  \
        (void)passing(first, ""), (void)passing(second, "");                                      \
        result = function(__VA_ARGS__, fn, opaque);                                               \
        memset(first, 'x', sizeof first);                                                         \
        memset(second, 'x', sizeof second);                                                       \
        return result;                                                                            \
    }

static int count_extent(off_t offset, size_t len, int status, void *opaque)
{
    (void)offset, (void)len, (void)status, (void)opaque;
    return 0;
}

#define NAME passing(first, on->name)
#define IDLE passing(first, on->idle)
#define NEW_NAME passing(first, on->new_name)
#define SECOND(text) passing(second, text)

CALL(sd_vdi_aopen, on->sd, NAME, &on->out)
CALL(sd_vdi_aopen_ro, on->sd, NAME, &on->out)
CALL(sd_vdi_acreate, on->sd, NEW_NAME, OBJECT, 0, false, &on->out)
CALL(sd_vdi_acreate_ex, on->sd, NEW_NAME, OBJECT, NULL, 0, &on->out)
CALL(sd_vdi_adelete, on->sd, IDLE)
CALL(sd_vdi_aresize, on->sd, on->vdi, 3 * OBJECT)
CALL(sd_vdi_aclone, on->sd, on->snapshot, NEW_NAME, NULL, 0, 0, &on->out)
CALL(sd_vdi_aget_info, on->vdi, &on->info, sizeof on->info)
CALL(sd_vdi_ablock_status, on->sd, on->vdi, 0, OBJECT, count_extent)
CALL(sd_vdi_asetattr, on->sd, NAME, SECOND("key"), "other", 5)
CALL(sd_vdi_agetattr, on->sd, NAME, SECOND("key"), on->value, sizeof on->value)
CALL(sd_vdi_adelattr, on->sd, NAME, SECOND("key"))
CALL(sd_snapshot_acreate, on->sd, on->vdi, SECOND("new tag"), &on->out)
CALL(sd_snapshot_aopen, on->sd, NAME, SECOND("tag"), 0, &on->out)
CALL(sd_snapshot_adelete, on->sd, IDLE, SECOND("tag"), 0)
CALL(sd_snapshot_arollback, on->sd, on->snapshot)
CALL(sd_vdi_aclose, &on->vdi)

#define ENTRY(function, opens) { #function, call_##function, opens }
const struct administration_call administration_calls[] = {
    ENTRY(sd_vdi_aopen, true),
    ENTRY(sd_vdi_aopen_ro, true),
    ENTRY(sd_vdi_acreate, true),
    ENTRY(sd_vdi_acreate_ex, true),
    ENTRY(sd_vdi_adelete, false),
    ENTRY(sd_vdi_aresize, false),
    ENTRY(sd_vdi_aclone, true),
    ENTRY(sd_vdi_aget_info, false),
    ENTRY(sd_vdi_ablock_status, false),
    ENTRY(sd_vdi_asetattr, false),
    ENTRY(sd_vdi_agetattr, false),
    ENTRY(sd_vdi_adelattr, false),
    ENTRY(sd_snapshot_acreate, true),
    ENTRY(sd_snapshot_aopen, true),
    ENTRY(sd_snapshot_adelete, false),
    ENTRY(sd_snapshot_arollback, false),
    ENTRY(sd_vdi_aclose, false),
};
const size_t administration_call_count =
    sizeof administration_calls / sizeof *administration_calls;

static const char *numbered_name(const char *test, const char *kind, size_t number)
{
    char suffix[32];

    snprintf(suffix, sizeof suffix, "%s%zu", kind, number);
    return unique_name(test, suffix);
}

struct administration prepare_administration(sd_t sd, const char *test, size_t number)
{
    struct administration on = { .sd = sd, .out = (sd_vdi_t)&untouched };
    sd_vdi_t idle;

    on.name = numbered_name(test, "a", number);
    on.idle = numbered_name(test, "b", number);
    on.new_name = numbered_name(test, "c", number);
    on.vdi = create_vdi(sd, on.name, 2 * OBJECT);
    OK(sd_vdi_write(sd, on.vdi, "data", 5, 0, 0));
    OK(sd_snapshot_create(sd, on.vdi, "tag", &on.snapshot));
    OK(sd_vdi_setattr(sd, on.name, "key", "value", 5));
    idle = create_vdi(sd, on.idle, OBJECT);
    OK(sd_vdi_write(sd, idle, "data", 5, 0, 0));
    OK(sd_snapshot_create(sd, idle, "tag", NULL));
    OK(sd_vdi_close(&idle));
    return on;
}

bool is_untouched(const struct administration *on)
{
    static const struct sd_vdi_info none;
    static const char nothing[sizeof on->value];

    return on->out == (sd_vdi_t)&untouched && memcmp(&on->info, &none, sizeof none) == 0 &&
           memcmp(on->value, nothing, sizeof nothing) == 0;
}
