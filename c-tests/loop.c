#include "loop.h"

#include "support.h"

#include <stdlib.h>

void note_outcome(sd_t sd, int result, void *opaque)
{
    struct outcome *outcome = opaque;

    (void)sd;
    outcome->calls++;
    outcome->result = result;
}

bool all_called(const struct outcome *outcomes, int count)
{
    int called = 0;

    for (int i = 0; i < count; i++) {
        CHECK(outcomes[i].calls <= 1);
        called += outcomes[i].calls;
    }
    return called == count;
}

void loop_write(struct loop *loop, sd_t sd, sd_vdi_t vdi, const void *data, size_t size,
                size_t offset)
{
    struct outcome outcome = { 0 };

    OK(sd_vdi_awrite(sd, vdi, data, size, (off_t)offset, 0, note_outcome, &outcome));
    TURN_UNTIL(loop, all_called(&outcome, 1));
    OK(outcome.result);
}

void loop_check(struct loop *loop, sd_t sd, sd_vdi_t vdi, const void *want, size_t size,
                size_t offset)
{
    struct outcome outcome = { 0 };
    void *got = poisoned(size);

    OK(sd_vdi_aread(sd, vdi, got, size, (off_t)offset, note_outcome, &outcome));
    TURN_UNTIL(loop, all_called(&outcome, 1));
    OK(outcome.result);
    CHECK_BYTES(got, want, size);
    free(got);
}
