#include "loop.h"

#include "support.h"

#include <sheepdog_libuv.h>

#include <stdlib.h>

struct loop *loop_new(void)
{
    uv_loop_t *loop = malloc(sizeof *loop);

    CHECK(loop && uv_loop_init(loop) == 0);
    return (struct loop *)loop;
}

static void close_handle(uv_handle_t *handle, void *opaque)
{
    (void)opaque;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void loop_free(struct loop *opaque)
{
    uv_loop_t *loop = (uv_loop_t *)opaque;

    uv_walk(loop, close_handle, NULL);
    CHECK(uv_run(loop, UV_RUN_DEFAULT) == 0);
    CHECK(uv_loop_close(loop) == 0);
    free(loop);
}

int loop_attach(struct loop *loop, sd_t sd)
{
    return sd_libuv_attach(sd, (uv_loop_t *)loop);
}

void loop_detach(struct loop *loop, sd_t sd)
{
    (void)loop;
    OK(sd_detach(sd));
}

void loop_turn(struct loop *loop)
{
    uv_run((uv_loop_t *)loop, UV_RUN_ONCE);
}

void loop_run(struct loop *loop)
{
    uv_run((uv_loop_t *)loop, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *loop)
{
    uv_stop((uv_loop_t *)loop);
}
