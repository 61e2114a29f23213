/* A program that closes every handle of its loop, ours included, before or after it is done with
 * the sd_t. */
#include "support.h"

#include <sheepdog_libuv.h>

static void close_handle(uv_handle_t *handle, void *opaque)
{
    (void)opaque;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void on_closed(uv_handle_t *handle)
{
    handle->data = NULL;
}

static void close_handle_and_hear(uv_handle_t *handle, void *opaque)
{
    (void)opaque;
    if (!uv_is_closing(handle))
        uv_close(handle, on_closed);
}

int main(void)
{
    static const uv_walk_cb walks[] = { close_handle, close_handle_and_hear };

    for (int round = 0; round < 6; round++) {
        sd_t sd = connect_to_server();
        uv_loop_t loop, next;

        CHECK(uv_loop_init(&loop) == 0 && uv_loop_init(&next) == 0);
        OK(sd_libuv_attach(sd, &loop));
        uv_walk(&loop, walks[round % 2], NULL);
        switch (round / 2) {
        case 0: /* closed while the loop is closing it */
            OK(sd_close(&sd));
            break;
        case 1: /* attached to the next loop while the loop is closing it */
            OK(sd_libuv_attach(sd, &next));
            break;
        case 2: /* the loop goes first */
            CHECK(uv_run(&loop, UV_RUN_DEFAULT) == 0 && uv_loop_close(&loop) == 0);
            OK(sd_detach(sd));
            OK(sd_libuv_attach(sd, &next));
            break;
        }
        if (round / 2 != 2)
            CHECK(uv_run(&loop, UV_RUN_DEFAULT) == 0 && uv_loop_close(&loop) == 0);
        if (sd)
            OK(sd_close(&sd));
        CHECK(uv_run(&next, UV_RUN_DEFAULT) == 0 && uv_loop_close(&next) == 0);
    }
}
