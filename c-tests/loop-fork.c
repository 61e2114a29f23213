/* A child that is forked in a callback, with requests in flight: none of their callbacks runs
 * there, whether it goes on with its copy of the loop or closes, and the parent's all run. */
#include "loop.h"
#include "support.h"

#include <sys/wait.h>
#include <unistd.h>

#define COUNT 32
#define SIZE (16 * KiB)

static struct outcome outcomes[COUNT];
static char data[COUNT][SIZE];
static pid_t parent, child;

static void fork_in_callback(sd_t sd, int result, void *opaque)
{
    if (getpid() != parent)
        _exit(1); /* no callback of the parent's in the child */
    if (child == 0) {
        child = fork();
        CHECK(child >= 0);
        if (child == 0)
            return;
    }
    note_outcome(sd, result, opaque);
}

int main(void)
{
    struct loop *loop = loop_new();
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    int status;

    parent = getpid();
    OK(loop_attach(loop, sd));
    for (int i = 0; i < COUNT; i++) {
        fill(data[i], SIZE, (uint64_t)i);
        OK(sd_vdi_awrite(sd, vdi, data[i], SIZE, i * (off_t)SIZE, 0, fork_in_callback,
                         &outcomes[i]));
    }
    while (child == 0 && getpid() == parent)
        loop_turn(loop);
    if (getpid() != parent) {
        char byte;

        alarm(30);
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, &byte, 1, 0));
        OK(sd_close(&sd));
        /* Without a search for leaks: what was in flight is lost. */
        execlp("true", "true", (char *)NULL);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    TURN_UNTIL(loop, all_called(outcomes, COUNT));
    for (int i = 0; i < COUNT; i++) {
        OK(outcomes[i].result);
        CHECK_CONTENT(sd, vdi, data[i], SIZE, (size_t)i * SIZE);
    }
    OK(sd_close(&sd));
    loop_free(loop);
}
