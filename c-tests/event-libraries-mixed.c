/* A program with all three event libraries, two of which have some names in common: each handle is
 * on the loop that it was attached to. */
#include "support.h"

#include <sheepdog_libev.h>
#include <sheepdog_libuv.h>

/* The headers of libev and libevent do not go together. */
struct event_base;
struct event_base *event_base_new(void);
int event_base_loop(struct event_base *base, int flags);
void event_base_free(struct event_base *base);
int sd_libevent_attach(sd_t sd, struct event_base *base);

#define EVLOOP_ONCE 1

#define KINDS 3

static int calls[KINDS];

static void on_done(sd_t sd, int result, void *opaque)
{
    (void)sd;
    OK(result);
    ++*(int *)opaque;
}

int main(void)
{
    struct event_base *base = event_base_new();
    struct ev_loop *ev = ev_loop_new(EVFLAG_AUTO);
    uv_loop_t uv;
    char data[KINDS][512];
    sd_t sd[KINDS];

    CHECK(base && ev && uv_loop_init(&uv) == 0);
    for (int i = 0; i < KINDS; i++) {
        char suffix[2] = { (char)('a' + i), '\0' };
        sd_vdi_t vdi;

        sd[i] = connect_to_server();
        vdi = create_vdi(sd[i], vdi_name(suffix), OBJECT);
        OK(i == 0   ? sd_libev_attach(ev, sd[i])
           : i == 1 ? sd_libevent_attach(sd[i], base)
                    : sd_libuv_attach(sd[i], &uv));
        OK(sd_vdi_aread(sd[i], vdi, data[i], sizeof data[i], 0, on_done, &calls[i]));
    }
    while (!calls[0])
        ev_run(ev, EVRUN_ONCE);
    CHECK(!calls[1] && !calls[2]);
    while (!calls[2])
        uv_run(&uv, UV_RUN_ONCE);
    CHECK(!calls[1]);
    while (!calls[1])
        CHECK(event_base_loop(base, EVLOOP_ONCE) == 0);
    for (int i = 0; i < KINDS; i++)
        OK(sd_close(&sd[i]));
    CHECK(uv_run(&uv, UV_RUN_DEFAULT) == 0 && uv_loop_close(&uv) == 0);
    ev_loop_destroy(ev);
    event_base_free(base);
}
