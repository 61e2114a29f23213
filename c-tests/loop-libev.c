#include "loop.h"

#include "support.h"

#include <sheepdog_libev.h>

struct loop *loop_new(void)
{
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);

    CHECK(loop);
    return (struct loop *)loop;
}

void loop_free(struct loop *loop)
{
    ev_loop_destroy((struct ev_loop *)loop);
}

int loop_attach(struct loop *loop, sd_t sd)
{
    return sd_libev_attach((struct ev_loop *)loop, sd);
}

void loop_detach(struct loop *loop, sd_t sd)
{
    (void)loop;
    OK(sd_detach(sd));
}

void loop_turn(struct loop *loop)
{
    ev_run((struct ev_loop *)loop, EVRUN_ONCE);
}

void loop_run(struct loop *loop)
{
    ev_run((struct ev_loop *)loop, 0);
}

void loop_stop(struct loop *loop)
{
    ev_break((struct ev_loop *)loop, EVBREAK_ALL);
}
