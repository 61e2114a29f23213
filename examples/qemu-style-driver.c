/* A block driver in the manner of QEMU's: asynchronous requests with an iovec, completed by a
 * callback, in an AioContext that watches descriptors. A skeleton to fill in, and a main that
 * tries it.
 *
 *     cc qemu-style-driver.c $(pkg-config --cflags --libs libsheepdog) -o qemu-style-driver
 *     ./qemu-style-driver 127.0.0.1:7000
 */
#include <sheepdog.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* --- What the program around the driver has: a context that calls handlers of descriptors --- */

typedef void (io_handler)(void *opaque);

struct aio_context {
    int fd;              /* one is enough here; -1 for none */
    io_handler *io_read;
    void *opaque;
};

static void aio_set_fd_handler(struct aio_context *ctx, int fd, io_handler *io_read, void *opaque)
{
    ctx->fd = io_read ? fd : -1;
    ctx->io_read = io_read;
    ctx->opaque = opaque;
}

/* Waits for an event and handles it; false if it cannot. */
static bool aio_poll(struct aio_context *ctx)
{
    struct pollfd fd = { .fd = ctx->fd, .events = POLLIN };

    while (poll(&fd, 1, -1) < 0)
        if (errno != EINTR)
            return false;
    ctx->io_read(ctx->opaque);
    return true;
}

/* --- The driver --- */

/* Called when a request has ended: with 0 or a negative errno. */
typedef void (completion)(void *opaque, int ret);

struct driver_state {
    struct aio_context *ctx;
    sd_t sd;
    sd_vdi_t vdi;
};

struct request {
    completion *cb;
    void *opaque;
};

static void driver_on_readable(void *opaque)
{
    struct driver_state *s = opaque;

    /* A completion may close the driver, and with it free `s`: nothing is touched afterwards. */
    sd_dispatch(s->sd);
}

/* Requests in flight stay in flight while the driver moves from one context to another. */
static void driver_detach_aio_context(struct driver_state *s)
{
    aio_set_fd_handler(s->ctx, sd_get_fd(s->sd), NULL, NULL);
    s->ctx = NULL;
}

static void driver_attach_aio_context(struct driver_state *s, struct aio_context *ctx)
{
    s->ctx = ctx;
    aio_set_fd_handler(ctx, sd_get_fd(s->sd), driver_on_readable, s);
}

/* 0 or a negative errno, as all that follow. */
static int driver_open(struct driver_state *s, struct aio_context *ctx, const char *addr,
                       const char *name)
{
    int result = sd_init(addr, &s->sd);

    if (result != SD_RES_SUCCESS)
        return -sd_result_to_errno(result);
    result = sd_vdi_open(s->sd, name, &s->vdi);
    if (result == SD_RES_SUCCESS && sd_get_fd(s->sd) < 0)
        result = SD_RES_NO_MEM; /* no descriptor left in this process */
    if (result != SD_RES_SUCCESS) {
        sd_close(&s->sd);
        return -sd_result_to_errno(result);
    }
    driver_attach_aio_context(s, ctx);
    return 0;
}

/* Requests in flight end with -ECANCELED, before this returns. */
static void driver_close(struct driver_state *s)
{
    driver_detach_aio_context(s);
    sd_close(&s->sd);
}

static void on_done(sd_t sd, int result, void *opaque)
{
    struct request request = *(struct request *)opaque;

    (void)sd;
    free(opaque);
    request.cb(request.opaque, -sd_result_to_errno(result));
}

static struct request *new_request(completion *cb, void *opaque)
{
    struct request *request = malloc(sizeof *request);

    if (request)
        *request = (struct request){ cb, opaque };
    return request;
}

/* What a submission returned: a request that was not started has no completion. */
static int submitted(struct request *request, int result)
{
    if (result != SD_RES_SUCCESS)
        free(request);
    return -sd_result_to_errno(result);
}

/* The buffers are the library's until the completion; the iovec itself is not. */
static int driver_aio_preadv(struct driver_state *s, off_t offset, const struct iovec *iov,
                             int iovcnt, completion *cb, void *opaque)
{
    struct request *request = new_request(cb, opaque);

    if (!request)
        return -ENOMEM;
    return submitted(request, sd_vdi_areadv(s->sd, s->vdi, iov, iovcnt, offset, on_done, request));
}

/* The guest's memory stays as it is until the completion, so it need not be copied. */
static int driver_aio_pwritev(struct driver_state *s, off_t offset, const struct iovec *iov,
                              int iovcnt, bool fua, completion *cb, void *opaque)
{
    struct request *request = new_request(cb, opaque);
    int flag = SD_WRITE_NOCOPY | (fua ? SD_WRITE_FUA : 0);

    if (!request)
        return -ENOMEM;
    return submitted(request,
                     sd_vdi_awritev(s->sd, s->vdi, iov, iovcnt, offset, flag, on_done, request));
}

static int driver_aio_flush(struct driver_state *s, completion *cb, void *opaque)
{
    struct request *request = new_request(cb, opaque);

    if (!request)
        return -ENOMEM;
    return submitted(request, sd_vdi_aflush(s->sd, s->vdi, on_done, request));
}

static int driver_aio_pdiscard(struct driver_state *s, off_t offset, size_t bytes, completion *cb,
                               void *opaque)
{
    struct request *request = new_request(cb, opaque);

    if (!request)
        return -ENOMEM;
    return submitted(request, sd_vdi_adiscard(s->sd, s->vdi, offset, bytes, on_done, request));
}

struct extent {
    int status;
    size_t len;
};

/* The first extent of a range: the walk ends after one. */
static int first_extent(off_t offset, size_t len, int status, void *opaque)
{
    struct extent *first = opaque;

    (void)offset;
    *first = (struct extent){ status, len };
    return 1;
}

/* Whether there is data at `offset`, and for how many bytes that holds. */
static int driver_block_status(struct driver_state *s, off_t offset, size_t bytes, bool *data,
                               size_t *pnum)
{
    struct extent first = { SD_EXTENT_HOLE, 0 };
    int result = sd_vdi_block_status(s->sd, s->vdi, offset, bytes, first_extent, &first);

    if (result != SD_RES_SUCCESS)
        return -sd_result_to_errno(result);
    *data = first.status != SD_EXTENT_HOLE;
    *pnum = first.len;
    return 0;
}

/* --- Trying it --- */

#define SIZE ((size_t)8 << 20)
#define PENDING 1

static void complete(void *ret, int value)
{
    *(int *)ret = value;
}

/* Waits for a request that was submitted; what the submission or the completion gave. */
static int wait_for(struct aio_context *ctx, int submission, const int *ret)
{
    if (submission < 0)
        return submission;
    while (*ret == PENDING)
        if (!aio_poll(ctx))
            return -errno;
    return *ret;
}

static int try(struct driver_state *s)
{
    static char out[4096], in[4096];
    struct iovec iov[2] = { { out, 1000 }, { out + 1000, sizeof out - 1000 } };
    struct aio_context *old = s->ctx, other = { .fd = -1 };
    size_t bytes;
    bool data;
    int ret, result;

#define TRY(call) \
    do { \
        ret = PENDING; \
        if ((result = wait_for(s->ctx, (call), &ret)) < 0) { \
            fprintf(stderr, "%s: %s\n", #call, strerror(-result)); \
            return result; \
        } \
    } while (0)

    memset(out, 'x', sizeof out);
    TRY(driver_aio_pwritev(s, 512, iov, 2, false, complete, &ret));
    TRY(driver_aio_flush(s, complete, &ret));
    driver_detach_aio_context(s); /* the program moves the driver to another thread's context */
    driver_attach_aio_context(s, &other);
    iov[0] = (struct iovec){ in, sizeof in };
    TRY(driver_aio_preadv(s, 512, iov, 1, complete, &ret));
    if (memcmp(in, out, sizeof in) != 0)
        return -EIO;
    if ((result = driver_block_status(s, 0, SIZE, &data, &bytes)) < 0)
        return result;
    printf("%s for %zu bytes\n", data ? "data" : "a hole", bytes);
    TRY(driver_aio_pdiscard(s, 0, SIZE, complete, &ret));
    if ((result = driver_block_status(s, 0, SIZE, &data, &bytes)) < 0)
        return result;
    printf("after the discard: %s for %zu bytes\n", data ? "data" : "a hole", bytes);
    driver_detach_aio_context(s);
    driver_attach_aio_context(s, old);
    return data ? -EIO : 0;
}

int main(int argc, char **argv)
{
    const char *addr = argc > 1 ? argv[1] : "127.0.0.1:7000";
    struct aio_context ctx = { .fd = -1 };
    struct driver_state s;
    char name[64];
    int result;
    sd_t sd;

    snprintf(name, sizeof name, "qemu-style-driver-%ld", (long)getpid());
    if ((result = sd_init(addr, &sd)) != SD_RES_SUCCESS ||
        (result = sd_vdi_create(sd, name, SIZE, 0, false, NULL)) != SD_RES_SUCCESS) {
        fprintf(stderr, "qemu-style-driver: %s: %s\n", addr, sd_strerror(result));
        return 1;
    }
    result = driver_open(&s, &ctx, addr, name);
    if (result == 0) {
        result = try(&s);
        driver_close(&s);
    }
    if (result < 0)
        fprintf(stderr, "qemu-style-driver: %s\n", strerror(-result));
    sd_vdi_delete(sd, name);
    sd_close(&sd);
    return result < 0 ? 1 : 0;
}
