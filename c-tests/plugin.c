/* The plugin of plugin-host.c: the only one in its process that has libsheepdog and libuv. */
#include <sheepdog_libuv.h>

#include <string.h>

static int outcome;

static void on_read(sd_t sd, int result, void *opaque)
{
    outcome = result != SD_RES_SUCCESS ? result : memcmp(opaque, "hello", 5) ? 1 : 0;
    sd_close(&sd);
}

/* 0, or the result of what went wrong. */
int plugin_run(const char *address, const char *name)
{
    char data[5];
    uv_loop_t loop;
    sd_vdi_t vdi;
    int result;
    sd_t sd;

    if ((result = strchr(address, '/') ? sd_init_unix(address, &sd) : sd_init(address, &sd)))
        return result;
    if (uv_loop_init(&loop) != 0)
        return SD_RES_NO_MEM;
    if ((result = sd_libuv_attach(sd, &loop)) ||
        (result = sd_vdi_create(sd, name, 4 << 20, 0, false, &vdi)) ||
        (result = sd_vdi_write(sd, vdi, "hello", 5, 0, 0)) ||
        (result = sd_vdi_aread(sd, vdi, data, 5, 0, on_read, data)))
        return result;
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop) == 0 ? outcome : SD_RES_SYSTEM_ERROR;
}
