/* The loop of a program that has its own: poll(2) on the descriptor. */
#include "loop.h"

#include "support.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#define MAX_HANDLES 8

struct loop {
    sd_t handles[MAX_HANDLES];
    int count;
    bool stopped;
};

struct loop *loop_new(void)
{
    struct loop *loop = calloc(1, sizeof *loop);

    CHECK(loop);
    return loop;
}

void loop_free(struct loop *loop)
{
    free(loop);
}

int loop_attach(struct loop *loop, sd_t sd)
{
    CHECK(loop->count < MAX_HANDLES);
    CHECK(sd_get_fd(sd) >= 0);
    loop->handles[loop->count++] = sd;
    return SD_RES_SUCCESS;
}

void loop_detach(struct loop *loop, sd_t sd)
{
    for (int i = 0; i < loop->count; i++)
        if (loop->handles[i] == sd)
            loop->handles[i--] = loop->handles[--loop->count];
}

/* A handle that was closed is attached no more. */
static void forget_closed(struct loop *loop)
{
    for (int i = 0; i < loop->count; i++)
        if (sd_get_fd(loop->handles[i]) < 0)
            loop_detach(loop, loop->handles[i--]);
}

void loop_turn(struct loop *loop)
{
    struct pollfd fds[MAX_HANDLES];
    sd_t handles[MAX_HANDLES];
    int count, ready;

    forget_closed(loop);
    count = loop->count;
    for (int i = 0; i < count; i++) {
        handles[i] = loop->handles[i];
        fds[i] = (struct pollfd){ .fd = sd_get_fd(handles[i]), .events = POLLIN };
    }
    do
        ready = count ? poll(fds, (nfds_t)count, -1) : 0;
    while (ready < 0 && errno == EINTR);
    CHECK(ready >= 0);
    for (int i = 0; i < count; i++)
        if (fds[i].revents)
            sd_dispatch(handles[i]); /* fails where a callback has closed it */
    forget_closed(loop);
}

void loop_run(struct loop *loop)
{
    loop->stopped = false;
    while (loop->count && !loop->stopped)
        loop_turn(loop);
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
}
