/* What the library asks of libuv, and what it makes of the answers: a libuv of the test's own,
 * whose functions fail, tell of errors, and count. */
#include "support.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <uv.h>

int sd_libuv_attach(sd_t sd, uv_loop_t *loop);

static uv_loop_t loop;
static uv_poll_t *handle; /* NULL where the loop knows none */
static uv_poll_cb poll_cb;
static uv_close_cb close_cb;
static int watched_fd, init_result, start_result, closes;
static bool closing;

size_t uv_handle_size(uv_handle_type type)
{
    CHECK(type == UV_POLL);
    return sizeof(uv_poll_t);
}

int uv_poll_init(uv_loop_t *of, uv_poll_t *new_handle, int fd)
{
    CHECK(of == &loop && !handle);
    if (init_result == 0) {
        handle = new_handle;
        watched_fd = fd;
        closing = false;
        poll_cb = NULL;
    }
    return init_result;
}

int uv_poll_start(uv_poll_t *of, int events, uv_poll_cb callback)
{
    CHECK(of == handle && events == UV_READABLE && callback);
    if (start_result == 0)
        poll_cb = callback;
    return start_result;
}

void uv_close(uv_handle_t *of, uv_close_cb callback)
{
    CHECK(of == (uv_handle_t *)handle && !closing && callback);
    CHECK(fcntl(watched_fd, F_GETFD) >= 0); /* still open: others could have got its number */
    closing = true;
    close_cb = callback;
    poll_cb = NULL;
    closes++;
}

int uv_is_closing(const uv_handle_t *of)
{
    CHECK(of == (uv_handle_t *)handle);
    return closing;
}

/* A later turn of the loop: the memory is the library's again. */
static void finish_close(void)
{
    uv_poll_t *closed = handle;

    CHECK(closing);
    handle = NULL;
    close_cb((uv_handle_t *)closed);
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
    struct pollfd pollfd = { .events = POLLIN };
    char byte;
    int calls = 0;

    /* A loop that refuses: nothing is attached, and nothing is left. */
    init_result = UV_EEXIST;
    FAILS(SD_RES_SYSTEM_ERROR, sd_libuv_attach(sd, &loop));
    init_result = UV_ENOMEM;
    FAILS(SD_RES_NO_MEM, sd_libuv_attach(sd, &loop));
    CHECK(closes == 0);
    init_result = 0;
    start_result = UV_ENOMEM;
    FAILS(SD_RES_NO_MEM, sd_libuv_attach(sd, &loop));
    CHECK(closes == 1);
    finish_close();
    start_result = 0;

    OK(sd_libuv_attach(sd, &loop));
    FAILS(SD_RES_INVALID_PARMS, sd_libuv_attach(sd, &loop));
    CHECK(closes == 1);

    /* An error of the loop is as good as readiness, and readiness without work as good as none. */
    poll_cb(handle, 0, UV_READABLE);
    OK(sd_vdi_aread(sd, vdi, &byte, 1, 0, on_done, &calls));
    pollfd.fd = watched_fd;
    while (!calls) {
        CHECK(poll(&pollfd, 1, -1) == 1);
        poll_cb(handle, UV_EBADF, 0);
    }

    /* Who runs the loop only the loop knows: it is asked to let go, until it has. */
    CHECK(poll(&pollfd, 1, 0) == 0);
    OK(sd_detach(sd));
    CHECK(closes == 1 && poll(&pollfd, 1, 0) == 1 && poll(&pollfd, 1, 0) == 1);
    poll_cb(handle, 0, UV_READABLE);
    CHECK(closes == 2 && !poll_cb);
    finish_close();
    OK(sd_libuv_attach(sd, &loop));
    pollfd.fd = watched_fd;

    /* Closed in a callback: the handle's memory is left alone until libuv gives it back. */
    calls = 0;
    OK(sd_vdi_aread(sd, vdi, &byte, 1, 0, close_in_callback, &calls));
    while (!calls) {
        CHECK(poll(&pollfd, 1, -1) == 1);
        poll_cb(handle, 0, UV_READABLE);
    }
    CHECK(closes == 3 && closing);
    finish_close();
}
