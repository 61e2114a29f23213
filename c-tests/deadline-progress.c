/* What grows with a VDI may take longer than the time limit of a call, as long as it gets on. */
#include "support.h"

#define OBJECTS 2048

static uint64_t make_and_delete(sd_t sd, const char *name, unsigned timeout_ms)
{
    struct sd_create_opts opts = { .object_size = MiB, .prealloc = true };
    uint64_t start = monotonic_ms();

    OK(sd_set_timeout(sd, timeout_ms));
    OK(sd_vdi_create_ex(sd, name, OBJECTS * MiB, &opts, sizeof opts, NULL));
    OK(sd_vdi_delete(sd, name));
    return monotonic_ms() - start;
}

int main(void)
{
    sd_t sd = connect_to_server();
    uint64_t whole;

    need_object_sizes(sd);
    whole = make_and_delete(sd, vdi_name("a"), 0);
    /* Each of the two takes about half of it, and thousands of steps. */
    make_and_delete(sd, vdi_name("b"), (unsigned)(whole / 4));
    OK(sd_close(&sd));
}
