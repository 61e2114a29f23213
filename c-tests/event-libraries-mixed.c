#define _GNU_SOURCE /* RTLD_DEFAULT */
/* A program with all three event libraries, of which libev has some of libevent's names and comes
 * first: each handle is on the loop of the library that it was attached to. */
#include "support.h"

#include <dlfcn.h>
#include <sheepdog_libev.h>
#include <sheepdog_libuv.h>

/* The headers of libev and libevent do not go together. */
struct event_base;
struct event_config *event_config_new(void);
struct event_base *event_base_new_with_config(const struct event_config *config);
void event_config_free(struct event_config *config);
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
    /* The functions with the same names are libev's here, so libevent's are looked up. */
    void *libevent = dlopen(LIBEVENT, RTLD_NOLOAD | RTLD_LAZY);
    int (*base_loop)(struct event_base *, int);
    void (*base_free)(struct event_base *);
    struct event_config *config = event_config_new();
    struct event_base *base = event_base_new_with_config(config);
    struct ev_loop *ev = ev_loop_new(EVFLAG_AUTO);
    uv_loop_t uv;
    char data[KINDS][512];
    sd_t sd[KINDS];

    CHECK(base && ev && uv_loop_init(&uv) == 0 && libevent);
    base_loop = (int (*)(struct event_base *, int))dlsym(libevent, "event_base_loop");
    base_free = (void (*)(struct event_base *))dlsym(libevent, "event_base_free");
    CHECK((void *)base_loop != dlsym(RTLD_DEFAULT, "event_base_loop"));
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
        CHECK(base_loop(base, EVLOOP_ONCE) == 0);
    for (int i = 0; i < KINDS; i++)
        OK(sd_close(&sd[i]));
    CHECK(uv_run(&uv, UV_RUN_DEFAULT) == 0 && uv_loop_close(&uv) == 0);
    ev_loop_destroy(ev);
    base_free(base);
    event_config_free(config);
    dlclose(libevent);
}
