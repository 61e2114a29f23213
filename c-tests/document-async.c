/* A program written from the design document's text alone, with its types: connect, attach, read
 * and write without waiting, list. Compiled for each event library. */
#if defined LIBEV
#include <sheepdog_libev.h>
#elif defined LIBEVENT
#include <sheepdog_libevent.h>
#else
#include <sheepdog_libuv.h>
#endif

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 4096

struct example {
    sd_t sd;
    sd_vdi_t vdi;
    char data[SIZE];
    int step, result;
};

static void done(struct example *example, int result)
{
    example->result = result;
    sd_close(&example->sd);
}

static void read_done(sd_t sd, int result, void *data)
{
    struct example *example = data;
    char *name;
    bool found = false;
    struct sd_list_iter iter;

    if (result == 0)
        result = memcmp(example->data, "hello, sheep", 13) ? 1 : 0;
    if (result == 0 && (result = sd_vdi_list(sd, &iter)) == 0) {
        while (iter.has_next()) {
            name = iter.next_string();
            found = found || strcmp(name, "document") == 0;
        }
        iter.destory();
        result = found ? 0 : 1;
    }
    done(example, result);
}

static void write_done(sd_t sd, int result, void *data)
{
    struct example *example = data;

    if (result == 0)
        result = sd_vdi_aread(sd, example->vdi, example->data, SIZE, 512, read_done, example);
    if (result != 0)
        done(example, result);
}

int main(int argc, char **argv)
{
    char *addr = argc > 1 ? argv[1] : NULL;
    struct example example = { .result = -1 };
    char text[] = "hello, sheep";
    void *buffer = text;
    int result;
#if defined LIBEV
    struct ev_loop *loop = ev_default_loop(0);
#elif defined LIBEVENT
    struct event_base *base = event_base_new();
#else
    uv_loop_t *loop = uv_default_loop();
#endif

    if ((result = sd_ainit(addr, &example.sd)) != 0)
        return 1;
#if defined LIBEV
    result = sd_libev_attach(EV_A_ example.sd);
#elif defined LIBEVENT
    result = sd_libevent_attach(example.sd, base);
#else
    result = sd_libuv_attach(example.sd, loop);
#endif
    if (result == 0)
        result = sd_vdi_create(example.sd, "document", 64 << 20, 0, false, &example.vdi);
    if (result == 0)
        result = sd_vdi_awrite(example.sd, example.vdi, buffer, sizeof text, 512, 0, write_done,
                               &example);
    if (result == 0) {
        memset(text, 0, sizeof text);
#if defined LIBEV
        ev_run(loop, 0);
#elif defined LIBEVENT
        event_base_dispatch(base);
#else
        uv_run(loop, UV_RUN_DEFAULT);
#endif
        result = example.result;
    }
    if (result != 0)
        printf("result %#x\n", (unsigned)result);
#if defined LIBEV
    ev_loop_destroy(loop);
#elif defined LIBEVENT
    event_base_free(base);
#else
    uv_loop_close(loop);
#endif
    return result != 0;
}
