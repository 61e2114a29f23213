/* Each asynchronous call of administration succeeds, calls back once, never inside the submission,
 * and writes where it was told to before that; what it was given may go at once. Nothing of the
 * limit stays used. */
#include "async.h"

int main(void)
{
    sd_t sd = connect_to_server();
    size_t used;

    for (size_t i = 0; i < administration_call_count; i++) {
        const struct administration_call *call = &administration_calls[i];
        struct administration on = prepare_administration(sd, TEST_NAME, i);
        sd_vdi_t vdi;

        expect_result(__FILE__, __LINE__, call->name, AWAIT(sd, call->submit(&on, NOTED)),
                      SD_RES_SUCCESS);
        vdi = on.out;
        if (call->opens)
            OK(sd_vdi_close(&vdi));
        OK(sd_get_buffer_usage(sd, &used));
        CHECK(used == 0);
        if (on.vdi)
            OK(sd_vdi_close(&on.vdi));
        OK(sd_vdi_close(&on.snapshot));
    }
    OK(sd_close(&sd));
    CHECK(noted.calls == (int)administration_call_count);
}
