/* sd_init_ex(): each option does what it says, what this version does not know is refused, and every
 * form of address leads to the server. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void connects(const char *format, const char *where)
{
    struct sd_init_opts opts = { .flags = SD_INIT_NO_ROUTING };
    char address[512];
    struct sd_list_iter iter;
    sd_t sd;

    snprintf(address, sizeof address, format, where);
    OK(sd_init_ex(address, &opts, sizeof opts, &sd));
    OK(sd_vdi_list(sd, &iter));
    iter.destory();
    OK(sd_close(&sd));
}

static void options(const struct lamb *lamb)
{
    struct {
        struct sd_init_opts opts;
        uint32_t later;
    } larger = { .later = 0 };
    struct sd_init_opts opts = { .buffer_limit = 12345 };
    size_t limit;
    sd_t sd;

    OK(sd_init_ex(lamb->tcp, NULL, 0, &sd));
    OK(sd_get_buffer_limit(sd, &limit));
    CHECK(limit == 256 * MiB);
    OK(sd_close(&sd));
    OK(sd_init_ex(lamb->tcp, &opts, sizeof opts, &sd));
    OK(sd_get_buffer_limit(sd, &limit));
    CHECK(limit == 12345);
    OK(sd_close(&sd));
    OK(sd_init_ex(lamb->tcp, &opts, 12, &sd)); /* of a version without a limit */
    OK(sd_get_buffer_limit(sd, &limit));
    CHECK(limit == 256 * MiB);
    OK(sd_close(&sd));
    OK(sd_init_ex(lamb->tcp, (void *)&larger, sizeof larger, &sd));
    OK(sd_close(&sd));

    larger.later = 1;
    FAILS(SD_RES_INVALID_PARMS, sd_init_ex(lamb->tcp, (void *)&larger, sizeof larger, &sd));
    opts = (struct sd_init_opts){ .flags = 4 };
    FAILS(SD_RES_INVALID_PARMS, sd_init_ex(lamb->tcp, &opts, sizeof opts, &sd));
    opts = (struct sd_init_opts){ .reserved = 1 };
    FAILS(SD_RES_INVALID_PARMS, sd_init_ex(lamb->tcp, &opts, sizeof opts, &sd));
    opts = (struct sd_init_opts){ .reserved2 = 1 };
    FAILS(SD_RES_INVALID_PARMS, sd_init_ex(lamb->tcp, &opts, sizeof opts, &sd));
    FAILS(SD_RES_INVALID_PARMS, sd_init_ex(lamb->tcp, NULL, 0, NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_init_ex("sheepdog://a/vdi", NULL, 0, &sd));
}

static void times(struct lamb *lamb)
{
    struct sd_init_opts opts = { .connect_timeout_ms = 100, .timeout_ms = UINT32_MAX };
    char address[32], byte;
    int fd = bound_socket(address), status;
    sd_vdi_t vdi;
    sd_t sd;

    /* Somebody takes connections and says nothing. Only the first of the two times ends that. */
    CHECK(listen(fd, 1) == 0);
    FAILS(SD_RES_NOT_CONNECTED, sd_init_ex(address, &opts, sizeof opts, &sd));
    opts = (struct sd_init_opts){ .timeout_ms = 100 };
    FAILS(SD_RES_TIMEDOUT, sd_init_ex(address, &opts, sizeof opts, &sd));
    close(fd);

    opts = (struct sd_init_opts){ .close_timeout_ms = 100 };
    OK(sd_init_ex(lamb->tcp, &opts, sizeof opts, &sd));
    OK(sd_vdi_create(sd, "a", OBJECT, 0, false, &vdi));
    CHECK(kill(lamb->pid, SIGSTOP) == 0);
    CHECK(waitpid(lamb->pid, &status, WUNTRACED) == lamb->pid && WIFSTOPPED(status));
    OK(sd_set_timeout(sd, 300));
    FAILS(SD_RES_TIMEDOUT, sd_vdi_read(sd, vdi, &byte, 1, 0));
    FAILS(SD_RES_TIMEDOUT, sd_close(&sd));
    CHECK(kill(lamb->pid, SIGCONT) == 0);
}

static void without_waiting(void)
{
    struct sd_init_opts opts = { .flags = SD_INIT_ASYNC };
    struct sd_list_iter iter;
    char address[32];
    int fd = bound_socket(address);
    sd_t sd;

    OK(sd_init_ex(address, &opts, sizeof opts, &sd));
    FAILS(SD_RES_NOT_CONNECTED, sd_vdi_list(sd, &iter));
    OK(sd_close(&sd));
    OK(sd_init_ex("no-such-host.invalid", &opts, sizeof opts, &sd));
    FAILS(SD_RES_NOT_CONNECTED, sd_vdi_list(sd, &iter));
    OK(sd_close(&sd));
    close(fd);
}

int main(void)
{
    struct lamb *lamb = lamb_start();
    char address[32];
    int fd = bound_socket(address);
    char refused_first[64];

    options(lamb);
    connects("%s", lamb->tcp);
    connects("localhost:%s", strrchr(lamb->tcp, ':') + 1);
    connects("unix:%s", lamb->unix_socket);
    connects("sheepdog:%s", lamb->tcp);
    connects("sheepdog://%s/", lamb->tcp);
    connects("sheepdog+tcp://%s", lamb->tcp);
    connects("sheepdog+unix://%s", lamb->unix_socket);
    connects("sheepdog+unix:///?socket=%s", lamb->unix_socket);
    snprintf(refused_first, sizeof refused_first, "%s,unix:%%s", address);
    connects(refused_first, lamb->unix_socket);
    without_waiting();
    times(lamb);
    close(fd);
    lamb_stop(lamb);
}
