/* A fork in one thread while another one makes the first call of its process: neither process waits
 * for what the other one has begun. Nor where the first call falls into what the program itself has
 * its fork wait for: the C library lets handlers be registered meanwhile, and calls them from the
 * next fork on only. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int ready;
/* In a round of the second kind: how far the handler and the thread are. */
static bool in_handler;
static atomic_bool may_call, has_called, has_forked;

static void ignore(int level, const char *message, void *opaque)
{
    (void)level, (void)message, (void)opaque;
}

static void call(void)
{
    char address[32];
    sd_t sd;

    sd_set_log(ignore, SD_LOG_ERROR, NULL);
    FAILS(SD_RES_INVALID_PARMS, sd_close(&(sd_t){ NULL }));
    bound_socket(address);
    FAILS(SD_RES_NOT_CONNECTED, sd_init(address, &sd));
}

static void handler(void)
{
    atomic_store(&may_call, true);
    while (in_handler && !atomic_load(&has_called))
        ;
}

static void *call_first(void *opaque)
{
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) < 2)
        ;
    while (in_handler && !atomic_load(&may_call))
        ;
    call();
    while (in_handler && !atomic_load(&has_forked)) {
        sd_set_log(ignore, SD_LOG_ERROR, NULL);
        atomic_store(&has_called, true);
    }
    return opaque;
}

/* A process that has not called the library yet. */
static void in_new_process(int delay)
{
    pthread_t thread;
    pid_t child;
    int status;

    alarm(20);
    CHECK(pthread_create(&thread, NULL, call_first, NULL) == 0);
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) < 2)
        ;
    for (volatile int i = 0; i < delay; i++)
        ;
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(10);
        call();
        /* Without a search for leaks: what the other thread had is lost. */
        execlp("true", "true", (char *)NULL);
    }
    atomic_store(&has_forked, true);
    call();
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
#ifdef __SANITIZE_ADDRESS__
    /* It may leave its allocator locked in the child of a process with threads. */
    skip("the sanitizer's allocator does not outlive such a fork");
#endif
    bool slow = getenv("LD_PRELOAD") && strstr(getenv("LD_PRELOAD"), "vgpreload");
    int rounds = slow ? 20 : 600;

    CHECK(pthread_atfork(handler, NULL, NULL) == 0);
    for (int round = 0; round < rounds; round++) {
        pid_t process = fork();
        int status;

        CHECK(process >= 0);
        if (process == 0) {
            in_handler = round % 2 != 0;
            in_new_process(round % 200 * 20);
            _exit(0);
        }
        CHECK(waitpid(process, &status, 0) == process);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}
