/* The log goes to the function set, down to the level asked for, and nowhere once it is off. */
#include "support.h"

#include <stdatomic.h>
#include <unistd.h>

static atomic_int messages, highest;
static const char *name;
static int cookie;

static void count(int level, const char *message, void *opaque)
{
    CHECK(level >= SD_LOG_ERROR && level <= SD_LOG_TRACE);
    CHECK(message && *message);
    CHECK(opaque == &cookie);
    messages++;
    if (level > highest)
        highest = level;
}

static void fail_to_connect(void)
{
    char address[32];
    int fd = bound_socket(address);
    sd_t sd;

    FAILS(SD_RES_NOT_CONNECTED, sd_init(address, &sd));
    close(fd);
}

static void work(void)
{
    sd_t sd = connect_to_server();

    OK(sd_vdi_create(sd, name, OBJECT, 0, false, NULL));
    OK(sd_vdi_delete(sd, name));
    OK(sd_close(&sd));
    fail_to_connect();
}

int main(void)
{
    name = vdi_name("a");
    sd_set_log(count, SD_LOG_TRACE, &cookie);
    work();
    CHECK(messages > 0);

    highest = 0;
    sd_set_log(count, SD_LOG_WARN, &cookie);
    work();
    CHECK(highest <= SD_LOG_WARN);

    sd_set_log(count, 0, &cookie);
    messages = 0;
    work();
    sd_set_log(NULL, SD_LOG_TRACE, NULL);
    work();
    CHECK(messages == 0);
}
