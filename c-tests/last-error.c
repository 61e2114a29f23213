/* sd_last_error() says what failed, of whom it was asked, and why: of this thread's last call, or
 * of the request whose callback runs. */
#include "fake.h"
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAYS(text) says(__LINE__, (text))
#define SAYS_NOTHING() CHECK_STR(sd_last_error(), "")

static void says(int line, const char *text)
{
    if (!strstr(sd_last_error(), text))
        fail(__FILE__, line, "\"%s\" does not say \"%s\"", sd_last_error(), text);
}

static bool speaks_http(int fd, const unsigned char *request)
{
    static const char text[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                               "Connection: close\r\n\r\nThis is no place for sheep.\r\n";
    (void)request;
    fake_send(fd, text, sizeof text - 1);
    return false;
}

static bool hangs_up(int fd, const unsigned char *request)
{
    (void)fd, (void)request;
    return false;
}

static bool unformatted(int fd, const unsigned char *request)
{
    return fake_reply(fd, request, SD_RES_WAIT_FOR_FORMAT, 0);
}

static void init_at(fake_answer *answer, int result, const char *text)
{
    struct fake fake;
    sd_t sd;

    fake_start(&fake, answer);
    FAILS(result, sd_init(fake.address, &sd));
    SAYS(fake.address);
    SAYS(text);
    fake_stop(&fake);
}

static void connecting(void)
{
    char address[32], two[80];
    int fd = bound_socket(address);
    sd_t sd;

    FAILS(SD_RES_NOT_CONNECTED, sd_init(address, &sd));
    SAYS(address);
    SAYS("Connection refused");
    snprintf(two, sizeof two, "%s,no-such-host.invalid", address);
    FAILS(SD_RES_NOT_CONNECTED, sd_init(two, &sd));
    SAYS("Connection refused");
    FAILS(SD_RES_NOT_CONNECTED, sd_init("no-such-host.invalid", &sd));
    SAYS("no-such-host.invalid");
    SAYS("lookup");
    FAILS(SD_RES_NOT_CONNECTED, sd_init_unix("/no/such/socket", &sd));
    SAYS("/no/such/socket: No such file");
    FAILS(SD_RES_INVALID_PARMS, sd_init("host:port", &sd));
    SAYS("host[:port]");
    init_at(speaks_http, SD_RES_BAD_REPLY, "no sheepdog server");
    init_at(hangs_up, SD_RES_NOT_CONNECTED, "closed without an answer");
    init_at(unformatted, SD_RES_WAIT_FOR_FORMAT, "format");
    CHECK(sd_result_to_errno(SD_RES_WAIT_FOR_FORMAT) == ENXIO);
    close(fd);
}

static void *in_another_thread(void *opaque)
{
    SAYS_NOTHING();
    FAILS(SD_RES_INVALID_PARMS, sd_dispatch(NULL));
    SAYS("sd_t");
    return opaque;
}

static int failures;

static void on_failure(sd_t sd, int result, void *opaque)
{
    size_t used;

    FAILS(SD_RES_INVALID_PARMS, result);
    SAYS(opaque);
    OK(sd_get_buffer_usage(sd, &used));
    SAYS_NOTHING();
    FAILS(SD_RES_INVALID_PARMS, sd_get_buffer_usage(sd, NULL));
    SAYS("NULL");
    ++failures;
}

static void on_success(sd_t sd, int result, void *opaque)
{
    (void)sd;
    OK(result);
    SAYS_NOTHING();
    ++*(int *)opaque;
}

static void calls_and_requests(void)
{
    const char *name = vdi_name("a"), *first;
    sd_t sd = connect_to_server();
    sd_vdi_t vdi, other;
    pthread_t thread;
    char data[512] = { 0 };
    int calls = 0;

    SAYS_NOTHING();
    FAILS(SD_RES_NO_VDI, sd_vdi_open(sd, name, &vdi));
    SAYS(name);
    first = sd_last_error();
    CHECK(sd_last_error() == first && sd_strerror(1) && sd_last_error() == first);
    vdi = create_vdi(sd, name, OBJECT);
    SAYS_NOTHING();
    FAILS(SD_RES_VDI_EXIST, sd_vdi_create(sd, name, OBJECT, 0, false, NULL));
    SAYS(name);
    FAILS(SD_RES_NO_TAG, sd_snapshot_open(sd, name, "monday", 0, &other));
    SAYS("snapshot \"monday\" of VDI");
    FAILS(SD_RES_NO_TAG, sd_snapshot_open(sd, name, NULL, 77, &other));
    SAYS("snapshot 77 of VDI");
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, data, sizeof data, OBJECT, 0));
    SAYS(name);
    CHECK(pthread_create(&thread, NULL, in_another_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    SAYS(name);

    OK(sd_vdi_aread(sd, vdi, data, sizeof data, OBJECT, on_failure, (void *)name));
    SAYS_NOTHING();
    OK(sd_vdi_aread(sd, vdi, data, sizeof data, 0, on_success, &calls));
    while (!calls || !failures) {
        OK(sd_wait(sd, -1));
        SAYS_NOTHING();
    }
    OK(sd_close(&sd));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_flush(sd, vdi));
    SAYS("sd_t");
}

static void waiting(void)
{
    struct lamb *lamb = lamb_start();
    char data[512] = { 1 };
    int status;
    sd_t sd;
    sd_vdi_t vdi;

    OK(sd_init(lamb->tcp, &sd));
    OK(sd_vdi_create(sd, "a", OBJECT, 0, false, &vdi));
    OK(sd_vdi_write(sd, vdi, data, sizeof data, 0, 0));
    OK(sd_set_timeout(sd, 300));
    CHECK(kill(lamb->pid, SIGSTOP) == 0);
    CHECK(waitpid(lamb->pid, &status, WUNTRACED) == lamb->pid && WIFSTOPPED(status));
    FAILS(SD_RES_TIMEDOUT, sd_vdi_write(sd, vdi, data, sizeof data, 0, 0));
    SAYS("VDI \"a\"");
    SAYS(lamb->tcp);
    SAYS("has said nothing");
    FAILS(SD_RES_TIMEDOUT, sd_vdi_read(sd, vdi, data, sizeof data, 0));
    SAYS(lamb->tcp);
    CHECK(kill(lamb->pid, SIGCONT) == 0);
    OK(sd_set_timeout(sd, 30000));
    OK(sd_vdi_write(sd, vdi, data, sizeof data, 0, 0));
    SAYS_NOTHING();
    OK(sd_close(&sd));
    lamb_stop(lamb);
}

int main(void)
{
    SAYS_NOTHING();
    connecting();
    calls_and_requests();
    waiting();
}
