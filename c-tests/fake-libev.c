/* What the library asks of libev, and what it makes of the answers: a libev of the test's own,
 * which tells of errors, and counts. */
#include "support.h"

#include <fcntl.h>
#include <poll.h>
#include <sheepdog_libev.h>

static int loop; /* what the pointer points to is nobody's business */
static ev_io *io;
static ev_cleanup *cleanup;
static int version = EV_VERSION_MAJOR, starts, stops;

int ev_version_major(void) EV_NOEXCEPT
{
    return version;
}

void ev_io_start(struct ev_loop *of, ev_io *w) EV_NOEXCEPT
{
    CHECK((void *)of == &loop && !io && w->active == 0 && w->pending == 0 && w->priority == 0);
    CHECK(w->events == (EV_READ | EV__IOFDSET) && w->cb && w->next == NULL);
    w->active = 1;
    io = w;
    starts++;
}

void ev_io_stop(struct ev_loop *of, ev_io *w) EV_NOEXCEPT
{
    CHECK((void *)of == &loop && w == io);
    CHECK(fcntl(w->fd, F_GETFD) >= 0); /* still open: others could have got its number */
    io = NULL;
    stops++;
}

void ev_cleanup_start(struct ev_loop *of, ev_cleanup *w) EV_NOEXCEPT
{
    CHECK((void *)of == &loop && !cleanup && w->active == 0 && w->cb);
    w->active = 1;
    cleanup = w;
}

void ev_cleanup_stop(struct ev_loop *of, ev_cleanup *w) EV_NOEXCEPT
{
    CHECK((void *)of == &loop && w == cleanup);
    cleanup = NULL;
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
    struct ev_loop *const of = (struct ev_loop *)&loop;
    struct pollfd pollfd = { .events = POLLIN };
    char byte;
    int calls = 0;

    version = EV_VERSION_MAJOR + 1; /* whose structures nobody knows */
    FAILS(SD_RES_NO_SUPPORT, sd_libev_attach(of, sd));
    CHECK(starts == 0);
    version = EV_VERSION_MAJOR;

    OK(sd_libev_attach(of, sd));
    FAILS(SD_RES_INVALID_PARMS, sd_libev_attach(of, sd));
    CHECK(starts == 1 && io->fd >= 0);
    pollfd.fd = io->fd;

    /* An error of the loop is as good as readiness, and readiness without work as good as none. */
    io->cb(of, io, EV_READ);
    OK(sd_vdi_aread(sd, vdi, &byte, 1, 0, on_done, &calls));
    while (!calls) {
        CHECK(poll(&pollfd, 1, -1) == 1);
        io->cb(of, io, EV_ERROR);
    }

    /* Who runs the loop only the loop knows: it is asked to let go, until it has. */
    CHECK(poll(&pollfd, 1, 0) == 0);
    OK(sd_detach(sd));
    CHECK(stops == 0 && poll(&pollfd, 1, 0) == 1 && poll(&pollfd, 1, 0) == 1);
    io->cb(of, io, EV_READ);
    CHECK(stops == 1 && !io && !cleanup);
    OK(sd_libev_attach(of, sd));

    /* The loop's end, detached or not. */
    OK(sd_detach(sd));
    cleanup->cb(of, cleanup, EV_CLEANUP);
    CHECK(stops == 2 && !io && !cleanup);
    OK(sd_libev_attach(of, sd));
    cleanup->cb(of, cleanup, EV_CLEANUP);
    CHECK(stops == 3 && !io && !cleanup);
    OK(sd_detach(sd));
    CHECK(stops == 3);
    OK(sd_libev_attach(of, sd));
    pollfd.fd = io->fd;

    calls = 0;
    OK(sd_vdi_aread(sd, vdi, &byte, 1, 0, close_in_callback, &calls));
    while (!calls) {
        CHECK(poll(&pollfd, 1, -1) == 1);
        io->cb(of, io, EV_READ);
    }
    CHECK(stops == 4 && !io && !cleanup);
}
