/* In a program that has no event library an attach gives SD_RES_NO_SUPPORT, the log says what is
 * missing, and the handle is as good as before. */
#include "support.h"

#include <string.h>

/* As the headers have them, which would need those of the event libraries. */
int sd_libev_attach(void *loop, sd_t sd);
int sd_libevent_attach(sd_t sd, void *base);
int sd_libuv_attach(sd_t sd, void *loop);

static char logged[1000];

static void on_log(int level, const char *message, void *opaque)
{
    (void)opaque;
    if (level == SD_LOG_ERROR)
        strncat(logged, message, sizeof logged - strlen(logged) - 1);
}

static void refused(int result, const char *library, const char *symbol)
{
    FAILS(SD_RES_NO_SUPPORT, result);
    if (!strstr(logged, library) || !strstr(logged, symbol))
        fail(__FILE__, __LINE__, "the log does not name %s of %s: %s", symbol, library, logged);
    logged[0] = '\0';
}

int main(void)
{
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    int not_a_loop;

    sd_set_log(on_log, SD_LOG_ERROR, NULL);
    refused(sd_libev_attach(&not_a_loop, sd), "libev:", "ev_io_start");
    refused(sd_libevent_attach(sd, &not_a_loop), "libevent:", "event_assign");
    refused(sd_libuv_attach(sd, &not_a_loop), "libuv:", "uv_poll_init");
    sd_set_log(NULL, SD_LOG_OFF, NULL);
    OK(sd_detach(sd));
    OK(sd_vdi_write(sd, vdi, "hello", 5, 0, 0));
    OK(sd_close(&sd));
}
