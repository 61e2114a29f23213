/* Every asynchronous call of administration on an event loop, all of them at once, each called back
 * once; then the close. */
#include "async.h"
#include "loop.h"

int main(void)
{
    struct loop *loop = loop_new();
    sd_t sd = connect_to_server();
    struct administration on[32];
    struct outcome outcomes[32] = { { 0 } }, closed = { 0 };
    size_t count = administration_call_count;

    CHECK(count <= 32);
    for (size_t i = 0; i < count; i++)
        on[i] = prepare_administration(sd, TEST_NAME, i);
    OK(loop_attach(loop, sd));
    for (size_t i = 0; i < count; i++)
        OK(administration_calls[i].submit(&on[i], note_outcome, &outcomes[i]));
    TURN_UNTIL(loop, all_called(outcomes, (int)count));
    for (size_t i = 0; i < count; i++) {
        expect_result(__FILE__, __LINE__, administration_calls[i].name, outcomes[i].result,
                      SD_RES_SUCCESS);
        if (administration_calls[i].opens)
            OK(sd_vdi_close(&on[i].out));
    }
    OK(sd_aclose(&sd, note_outcome, &closed));
    TURN_UNTIL(loop, all_called(&closed, 1));
    OK(closed.result);
    loop_free(loop);
}
