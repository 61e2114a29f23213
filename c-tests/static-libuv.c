/* A program that has libuv linked statically: the library finds that copy. */
#include "support.h"

#include <dlfcn.h>
#include <sheepdog_libuv.h>

static void on_done(sd_t sd, int result, void *opaque)
{
    char *data = opaque;

    OK(result);
    CHECK_BYTES(data, "hello", 5);
    OK(sd_close(&sd));
}

int main(void)
{
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    uv_loop_t loop;
    char data[5];

    CHECK(!dlopen("libuv.so.1", RTLD_NOLOAD | RTLD_LAZY)); /* there is no other copy */
    CHECK(uv_loop_init(&loop) == 0);
    OK(sd_libuv_attach(sd, &loop));
    OK(sd_vdi_write(sd, vdi, "hello", 5, 0, 0));
    OK(sd_vdi_aread(sd, vdi, data, 5, 0, on_done, data));
    CHECK(uv_run(&loop, UV_RUN_DEFAULT) == 0);
    CHECK(uv_loop_close(&loop) == 0);
}
