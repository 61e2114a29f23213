/* sd_wake() ends one sd_wait() each time, that of another thread or the next one, and may be called
 * in a signal handler, whatever its thread is at. */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAITERS 4
#define ROUNDS 200

static sd_t volatile sd;
static atomic_int woken;

static void *wait_once(void *opaque)
{
    OK(sd_wait(sd, -1));
    atomic_fetch_add(&woken, 1);
    return opaque;
}

#ifndef __SANITIZE_THREAD__ /* which puts handlers off until its thread calls libc: a wait does not */
static atomic_int wrong;

static void wake_from_signal(int number)
{
    int before = errno;

    (void)number;
    errno = 12345;
    sd_wake(sd); /* which may be closed by now */
    if (errno != 12345)
        atomic_fetch_add(&wrong, 1);
    errno = before;
}

/* Signals that come while their thread opens and closes handles, and waits. */
static void in_handlers(void)
{
    struct sigaction action = { .sa_handler = wake_from_signal, .sa_flags = SA_RESTART };
    struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { 0 };

    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        sd_t other = connect_to_server(), closing;

        sd = other;
        OK(sd_wait(other, -1)); /* nothing else ends it */
        closing = other;
        OK(sd_close(&closing));
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(wrong == 0);
}
#endif

int main(void)
{
    pthread_t waiters[WAITERS];
    sd_t first = connect_to_server();
    int status;
    pid_t child;

    FAILS(SD_RES_INVALID_PARMS, sd_wake(NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_wake((sd_t)main));
    sd = first;
    FAILS(SD_RES_TIMEDOUT, sd_wait(first, 0));

    /* Before the wait: each ends one. */
    OK(sd_wake(first));
    OK(sd_wake(first));
    OK(sd_wait(first, -1));
    OK(sd_wait(first, 0));
    FAILS(SD_RES_TIMEDOUT, sd_wait(first, 0));

    /* Threads that may wait already: as many as are woken return. */
    for (int i = 0; i < WAITERS; i++)
        CHECK(pthread_create(&waiters[i], NULL, wait_once, NULL) == 0);
    for (int i = 0; i < WAITERS; i++)
        OK(sd_wake(first));
    for (int i = 0; i < WAITERS; i++)
        CHECK(pthread_join(waiters[i], NULL) == 0);
    CHECK(woken == WAITERS);
    FAILS(SD_RES_TIMEDOUT, sd_wait(first, 0));

    /* A child wakes nobody of its parent's. */
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        FAILS(SD_RES_INVALID_PARMS, sd_wake(first));
        OK(sd_close(&first));
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    FAILS(SD_RES_TIMEDOUT, sd_wait(first, 0));

#ifndef __SANITIZE_THREAD__
    in_handlers();
    FAILS(SD_RES_INVALID_PARMS, sd_wake(sd));
#endif
    OK(sd_wake(first));
    OK(sd_close(&first));
}
