#include "loop.h"

#include "support.h"

#include <sheepdog_libevent.h>

struct loop *loop_new(void)
{
    struct event_base *base = event_base_new();

    CHECK(base);
    return (struct loop *)base;
}

void loop_free(struct loop *loop)
{
    event_base_free((struct event_base *)loop);
}

int loop_attach(struct loop *loop, sd_t sd)
{
    return sd_libevent_attach(sd, (struct event_base *)loop);
}

void loop_detach(struct loop *loop, sd_t sd)
{
    (void)loop;
    OK(sd_detach(sd));
}

void loop_turn(struct loop *loop)
{
    CHECK(event_base_loop((struct event_base *)loop, EVLOOP_ONCE) >= 0);
}

void loop_run(struct loop *loop)
{
    CHECK(event_base_dispatch((struct event_base *)loop) >= 0);
}

void loop_stop(struct loop *loop)
{
    event_base_loopbreak((struct event_base *)loop);
}
