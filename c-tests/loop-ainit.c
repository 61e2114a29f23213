/* sd_ainit() waits for nothing: the first call says what went wrong, or works. */
#include "loop.h"
#include "support.h"

#include <string.h>
#include <unistd.h>

static void works(const char *name)
{
    struct loop *loop = loop_new();
    const char *address = server_address();
    sd_vdi_t vdi;
    sd_t sd;

    OK(strchr(address, '/') ? sd_ainit_unix(address, &sd) : sd_ainit(address, &sd));
    OK(loop_attach(loop, sd));
    vdi = create_vdi(sd, name, OBJECT);
    loop_write(loop, sd, vdi, "hello", 5, 0);
    loop_check(loop, sd, vdi, "hello", 5, 0);
    OK(sd_close(&sd));
    loop_free(loop);
}

static void refused(sd_t sd)
{
    struct loop *loop = loop_new();
    sd_vdi_t vdi = NULL;

    OK(loop_attach(loop, sd));
    FAILS(SD_RES_NOT_CONNECTED, sd_vdi_open(sd, "any", &vdi));
    CHECK(vdi == NULL);
    FAILS(SD_RES_NOT_CONNECTED, sd_vdi_delete(sd, "any"));
    OK(sd_close(&sd));
    loop_run(loop);
    loop_free(loop);
}

/* Closed before anything came of it. */
static void closed_at_once(void)
{
    struct loop *loop = loop_new();
    const char *address = server_address();
    sd_t sd;

    OK(strchr(address, '/') ? sd_ainit_unix(address, &sd) : sd_ainit(address, &sd));
    OK(loop_attach(loop, sd));
    OK(sd_close(&sd));
    loop_run(loop);
    loop_free(loop);
}

int main(void)
{
    char address[32];
    int fd = bound_socket(address);
    sd_t sd;

    works(vdi_name("a"));
    OK(sd_ainit(address, &sd));
    refused(sd);
    OK(sd_ainit_unix("/nonexistent/sock", &sd));
    refused(sd);
    closed_at_once();
    FAILS(SD_RES_INVALID_PARMS, sd_ainit("a:b:c", &sd));
    FAILS(SD_RES_INVALID_PARMS, sd_ainit_unix(NULL, &sd));
    close(fd);
}
