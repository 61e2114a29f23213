/* The other asynchronous calls: areadv, awritev, aflush, adiscard, awrite_zeroes. */
#include "loop.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

static struct loop *loop;
static struct outcome outcome;

/* Waits for the one request that was just submitted. */
static int outcome_of(int submitted)
{
    if (submitted != SD_RES_SUCCESS)
        return submitted;
    TURN_UNTIL(loop, all_called(&outcome, 1));
    outcome.calls = 0;
    return outcome.result;
}

int main(void)
{
    sd_t sd = connect_to_server();
    size_t size = 4 * OBJECT;
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), size);
    unsigned char *model = calloc(1, size), *got = poisoned(size);
    struct iovec iov[3];

    CHECK(model);
    loop = loop_new();
    OK(loop_attach(loop, sd));
    fill(model + 1000, 3 * OBJECT, 1);
    iov[0] = (struct iovec){ model + 1000, 17 };
    iov[1] = (struct iovec){ model + 1017, OBJECT };
    iov[2] = (struct iovec){ model + 1017 + OBJECT, 2 * OBJECT - 17 };
    OK(outcome_of(sd_vdi_awritev(sd, vdi, iov, 3, 1000, SD_WRITE_FUA, note_outcome, &outcome)));
    OK(outcome_of(sd_vdi_aflush(sd, vdi, note_outcome, &outcome)));

    iov[0] = (struct iovec){ got, OBJECT - 3 };
    iov[1] = (struct iovec){ NULL, 0 };
    iov[2] = (struct iovec){ got + OBJECT - 3, 3 * OBJECT + 3 };
    OK(outcome_of(sd_vdi_areadv(sd, vdi, iov, 3, 0, note_outcome, &outcome)));
    CHECK_BYTES(got, model, size);
    OK(outcome_of(sd_vdi_areadv(sd, vdi, NULL, 0, 0, note_outcome, &outcome)));

    memset(model + 100, 0, 5000);
    OK(outcome_of(sd_vdi_awrite_zeroes(sd, vdi, 100, 5000, 0, note_outcome, &outcome)));
    memset(model + OBJECT - 1, 0, OBJECT + 2);
    OK(outcome_of(sd_vdi_adiscard(sd, vdi, OBJECT - 1, OBJECT + 2, note_outcome, &outcome)));
    CHECK_CONTENT(sd, vdi, model, size, 0);
    OK(outcome_of(sd_vdi_awrite_zeroes(sd, vdi, 0, size, SD_WRITE_FUA, note_outcome, &outcome)));
    CHECK_CONTENT(sd, vdi, NULL, size, 0);

    /* What cannot be is refused: at once, or by the callback. */
    iov[0] = (struct iovec){ NULL, 1 };
    FAILS(SD_RES_INVALID_PARMS,
          outcome_of(sd_vdi_areadv(sd, vdi, iov, 1, 0, note_outcome, &outcome)));
    FAILS(SD_RES_INVALID_PARMS,
          outcome_of(sd_vdi_areadv(sd, vdi, iov, -1, 0, note_outcome, &outcome)));
    FAILS(SD_RES_INVALID_PARMS,
          outcome_of(sd_vdi_adiscard(sd, vdi, (off_t)size, 1, note_outcome, &outcome)));
    FAILS(SD_RES_INVALID_PARMS, outcome_of(sd_vdi_awrite(sd, vdi, model, 1, 0, 1 << 20,
                                                         note_outcome, &outcome)));
    FAILS(SD_RES_INVALID_PARMS, outcome_of(sd_vdi_awrite_zeroes(sd, vdi, 0, 1, 1 << 20,
                                                                note_outcome, &outcome)));
    FAILS(SD_RES_INVALID_PARMS, outcome_of(sd_vdi_aflush(sd, vdi, NULL, NULL)));
    FAILS(SD_RES_INVALID_PARMS, outcome_of(sd_vdi_aread(sd, vdi, got, 1, -1, note_outcome,
                                                        &outcome)));
    CHECK(outcome.calls == 0);
    OK(sd_close(&sd));
    loop_free(loop);
    free(model);
    free(got);
}
