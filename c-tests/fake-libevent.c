/* What the library asks of libevent, and what it makes of the answers: a libevent of the test's
 * own, whose functions fail, tell of odd events, and count. */
#include "support.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <poll.h>

#define ev_flags ev_evcallback.evcb_flags
#define ev_callback ev_evcallback.evcb_cb_union.evcb_callback
#define ev_arg ev_evcallback.evcb_arg

int sd_libevent_attach(sd_t sd, struct event_base *base);

static int base; /* what the pointer points to is nobody's business */
static struct event *event;
static int add_result, deletes, unassigns, assign_result;

ev_uint32_t event_get_version_number(void)
{
    return 0x02010c00;
}

size_t event_get_struct_event_size(void)
{
    return sizeof(struct event);
}

int event_assign(struct event *new_event, struct event_base *of, evutil_socket_t fd, short events,
                 event_callback_fn callback, void *opaque)
{
    CHECK((void *)of == &base && events == (EV_READ | EV_PERSIST) && callback);
    if (assign_result != 0)
        return assign_result;
    event = new_event;
    event->ev_fd = fd;
    event->ev_callback = callback;
    event->ev_arg = opaque;
    event->ev_flags = EVLIST_INIT;
    return 0;
}

int event_add(struct event *of, const struct timeval *timeout)
{
    CHECK(of == event && !timeout && event->ev_flags == EVLIST_INIT);
    if (add_result == 0)
        event->ev_flags |= EVLIST_INSERTED;
    return add_result;
}

int event_del(struct event *of)
{
    CHECK(of == event && (event->ev_flags & EVLIST_INSERTED));
    CHECK(fcntl(event->ev_fd, F_GETFD) >= 0); /* still open: others could have got its number */
    event->ev_flags = EVLIST_INIT;
    deletes++;
    return 0;
}

void event_debug_unassign(struct event *of)
{
    CHECK(of == event && !(event->ev_flags & EVLIST_INSERTED));
    event = NULL;
    unassigns++;
}

static void on_done(sd_t sd, int result, void *opaque)
{
    (void)sd;
    OK(result);
    ++*(int *)opaque;
}

static void close_in_callback(sd_t sd, int result, void *opaque)
{
    (void)result;
    OK(sd_close(&sd));
    ++*(int *)opaque;
}

int main(void)
{
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    struct event_base *const of = (struct event_base *)&base;
    struct pollfd pollfd = { .events = POLLIN };
    char byte;
    int calls = 0;

    assign_result = -1;
    FAILS(SD_RES_SYSTEM_ERROR, sd_libevent_attach(sd, of));
    assign_result = 0;
    add_result = -1;
    FAILS(SD_RES_SYSTEM_ERROR, sd_libevent_attach(sd, of));
    CHECK(deletes == 0 && unassigns == 1);
    add_result = 0;

    OK(sd_libevent_attach(sd, of));
    FAILS(SD_RES_INVALID_PARMS, sd_libevent_attach(sd, of));
    pollfd.fd = event->ev_fd;

    /* Whatever the loop tells is as good as readiness, and readiness without work as none. */
    event->ev_callback(event->ev_fd, EV_READ, event->ev_arg);
    OK(sd_vdi_aread(sd, vdi, &byte, 1, 0, on_done, &calls));
    while (!calls) {
        CHECK(poll(&pollfd, 1, -1) == 1);
        event->ev_callback(event->ev_fd, EV_TIMEOUT, event->ev_arg);
    }

    /* Who runs the loop only the loop knows: it is asked to let go, until it has. */
    CHECK(poll(&pollfd, 1, 0) == 0);
    OK(sd_detach(sd));
    CHECK(deletes == 0 && poll(&pollfd, 1, 0) == 1 && poll(&pollfd, 1, 0) == 1);
    event->ev_callback(event->ev_fd, EV_READ, event->ev_arg);
    CHECK(deletes == 1 && unassigns == 2);
    OK(sd_libevent_attach(sd, of));

    /* The base's end, which only the event knows of: another attach is welcome. */
    event->ev_flags = EVLIST_INIT;
    OK(sd_libevent_attach(sd, of));
    CHECK(deletes == 1 && event);
    pollfd.fd = event->ev_fd;

    calls = 0;
    OK(sd_vdi_aread(sd, vdi, &byte, 1, 0, close_in_callback, &calls));
    while (!calls) {
        CHECK(poll(&pollfd, 1, -1) == 1);
        event->ev_callback(event->ev_fd, EV_READ, event->ev_arg);
    }
    CHECK(deletes == 2 && !event);
}
