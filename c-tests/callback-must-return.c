/* A callback that is left by anything but a return ends the process with SIGABRT, and prints
 * nothing: whichever kind of callback it is. */
#define _GNU_SOURCE
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave_request(sd_t sd, int result, void *opaque)
{
    (void)sd, (void)result, (void)opaque;
    pthread_exit(NULL);
}

static int leave_extent(off_t offset, size_t len, int status, void *opaque)
{
    (void)offset, (void)len, (void)status, (void)opaque;
    pthread_exit(NULL);
    return 0;
}

static void leave_log(int level, const char *message, void *opaque)
{
    (void)level, (void)message, (void)opaque;
    pthread_exit(NULL);
}

static void expect_abort(int kind, const char *name)
{
    int output[2], status;
    char text[256];
    pid_t child;

    CHECK(pipe(output) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct rlimit no_core = { 0, 0 };
        sd_t sd = connect_to_server();
        sd_vdi_t vdi;
        char byte;

        setrlimit(RLIMIT_CORE, &no_core);
        dup2(output[1], STDERR_FILENO);
        OK(sd_vdi_open(sd, name, &vdi));
        if (kind == 0) {
            OK(sd_vdi_aread(sd, vdi, &byte, 1, 0, leave_request, NULL));
            for (;;)
                OK(sd_wait(sd, -1));
        } else if (kind == 1) {
            OK(sd_vdi_block_status(sd, vdi, 0, OBJECT, leave_extent, NULL));
        } else {
            sd_set_log(leave_log, SD_LOG_TRACE, NULL);
            FAILS(SD_RES_NO_VDI, sd_vdi_delete(sd, "callback-must-return: none"));
        }
        _exit(1);
    }
    close(output[1]);
    ssize_t printed = read(output[0], text, sizeof text - 1);
    close(output[0]);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    /* valgrind has something to say about it. */
    CHECK(printed == 0 || strncmp(text, "==", 2) == 0);
}

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");

    OK(sd_vdi_create(sd, name, OBJECT, 0, false, NULL));
    OK(sd_close(&sd));
    for (int kind = 0; kind < 3; kind++)
        expect_abort(kind, name);
}
