/* sd_aclose(): returns at once, the handle is gone, everything ends, and its callback is the last
 * one, after which nothing is left, the locks neither. */
#include "async.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUESTS 100

static struct lamb *lamb;
static struct noted reads[REQUESTS];
static char data[REQUESTS][512];
static int called;

static void stop_lamb(void)
{
    kill(lamb->pid, SIGSTOP);
    CHECK(waitpid(lamb->pid, NULL, WUNTRACED) == lamb->pid);
}

static void count(sd_t sd, int result, void *opaque)
{
    CHECK(noted.calls == 0);
    note(sd, result, opaque);
    called++;
}

static void closed(sd_t sd, int result, void *opaque)
{
    CHECK(called == REQUESTS);
    FAILS(SD_RES_INVALID_PARMS, sd_dispatch(sd));
    CHECK(sd_get_fd(sd) == -1);
    note(sd, result, opaque);
}

static sd_t open_with_requests(const char *name)
{
    sd_t sd;
    sd_vdi_t vdi;

    OK(sd_init(lamb->tcp, &sd));
    vdi = create_vdi(sd, name, OBJECT);
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    noted.calls = called = 0;
    stop_lamb();
    for (int i = 0; i < REQUESTS; i++) {
        reads[i].calls = 0;
        OK(sd_vdi_aread(sd, vdi, data[i], sizeof data[i], i, count, &reads[i]));
    }
    return sd;
}

static void check_closed(const char *name)
{
    sd_t sd;
    sd_vdi_t vdi;

    for (int i = 0; i < REQUESTS; i++)
        CHECK(reads[i].calls == 1 && reads[i].result == SD_RES_CANCELED);
    CHECK(noted.calls == 1);
    OK(sd_init(lamb->tcp, &sd));
    OK(sd_vdi_open(sd, name, &vdi));
    OK(sd_close(&sd));
}

/* Whoever watches the descriptor. */
static void dispatch_until_closed(void)
{
    sd_t sd = open_with_requests(vdi_name("a")), copy = sd;
    struct pollfd pollfd = { .fd = sd_get_fd(sd), .events = POLLIN };
    struct administration on = { .sd = copy, .name = "a", .idle = "b", .new_name = "c" };
    size_t used;

    OK(sd_aclose(&sd, closed, &noted));
    CHECK(!sd && called == 0 && noted.calls == 0);
    FAILS(SD_RES_INVALID_PARMS, sd_aclose(&copy, closed, &noted));
    FAILS(SD_RES_INVALID_PARMS, sd_close(&copy));
    FAILS(SD_RES_INVALID_PARMS, sd_get_buffer_usage(copy, &used));
    FAILS(SD_RES_INVALID_PARMS, sd_detach(copy));
    for (size_t i = 0; i < administration_call_count; i++)
        FAILS(SD_RES_INVALID_PARMS, administration_calls[i].submit(&on, NOTED));
    CHECK(copy && sd_get_fd(copy) == pollfd.fd);
    kill(lamb->pid, SIGCONT);
    while (!noted.calls) {
        CHECK(poll(&pollfd, 1, -1) == 1);
        OK(sd_dispatch(copy));
    }
    OK(noted.result);
    CHECK(noted.sd == copy);
    FAILS(SD_RES_INVALID_PARMS, sd_close(&copy));
    check_closed(vdi_name("a"));
}

/* Calls that other threads are in. */
struct call {
    sd_t sd;
    sd_vdi_t vdi;
    atomic_bool begun;
};

static void *wait_for_work(void *opaque)
{
    struct call *call = opaque;

    atomic_store(&call->begun, true);
    FAILS(SD_RES_CANCELED, sd_wait(call->sd, -1));
    return NULL;
}

static void *write_something(void *opaque)
{
    struct call *call = opaque;
    int result;

    atomic_store(&call->begun, true);
    result = sd_vdi_write(call->sd, call->vdi, "y", 1, 0, 0);
    CHECK(result == SD_RES_CANCELED || result == SD_RES_INVALID_PARMS);
    return NULL;
}

static void end_others(void)
{
    void *(*const functions[])(void *) = { wait_for_work, wait_for_work, write_something };
    struct call calls[3];
    pthread_t threads[3];
    sd_t sd, copy;
    sd_vdi_t vdi;

    OK(sd_init(lamb->tcp, &sd));
    vdi = create_vdi(sd, vdi_name("b"), OBJECT);
    CHECK(sd_get_fd(sd) >= 0);
    while (sd_wait(sd, 0) == SD_RES_SUCCESS)
        ; /* what was left to do */
    noted.calls = 0;
    called = REQUESTS;
    stop_lamb();
    for (int i = 0; i < 3; i++) {
        calls[i].sd = sd;
        calls[i].vdi = vdi;
        atomic_init(&calls[i].begun, false);
        CHECK(pthread_create(&threads[i], NULL, functions[i], &calls[i]) == 0);
        while (!atomic_load(&calls[i].begun))
            ;
    }
    poll(NULL, 0, 50); /* most likely they wait by now; if not, the calls are refused */
    copy = sd;
    OK(sd_aclose(&sd, closed, &noted));
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(noted.calls == 0);
    kill(lamb->pid, SIGCONT);
    while (!noted.calls)
        OK(sd_wait(copy, -1));
    OK(noted.result);
}

/* In the child a copy is freed, and nothing called. */
static void fork_while_closing(void)
{
    struct noted opened = { 0 };
    sd_vdi_t none = NULL;
    sd_t sd, copy;
    int status;
    pid_t child;

    OK(sd_init(lamb->tcp, &sd));
    noted.calls = 0;
    called = REQUESTS;
    stop_lamb();
    OK(sd_vdi_aopen(sd, vdi_name("a"), &none, note, &opened));
    copy = sd;
    OK(sd_aclose(&sd, closed, &noted));
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        FAILS(SD_RES_INVALID_PARMS, sd_wait(copy, 0));
        FAILS(SD_RES_INVALID_PARMS, sd_aclose(&copy, closed, &noted));
        OK(sd_close(&copy));
        _exit(noted.calls + opened.calls);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    kill(lamb->pid, SIGCONT);
    while (!noted.calls)
        OK(sd_wait(copy, -1));
    OK(noted.result);
    CHECK(opened.calls == 1 && opened.result == SD_RES_CANCELED && !none);
}

/* A server that says nothing holds it up for a while, and not for ever. */
static void give_up(void)
{
    sd_t sd, copy;
    sd_vdi_t vdi;

    OK(sd_init(lamb->tcp, &sd));
    vdi = create_vdi(sd, vdi_name("d"), OBJECT);
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    noted.calls = called = 0;
    stop_lamb();
    for (called = 0; called < REQUESTS; called++)
        OK(sd_vdi_awrite(sd, vdi, "y", 1, called, 0, note, &reads[called]));
    copy = sd;
    OK(sd_aclose(&sd, closed, &noted));
    while (!noted.calls)
        OK(sd_wait(copy, -1));
    CHECK(noted.result == SD_RES_TIMEDOUT);
    kill(lamb->pid, SIGCONT);
}

/* While it still connects, and nobody answers. */
static void while_connecting(void)
{
    sd_t sd, copy;

    stop_lamb();
    OK(sd_ainit(lamb->tcp, &sd));
    noted.calls = 0;
    called = REQUESTS;
    copy = sd;
    OK(sd_aclose(&sd, closed, &noted));
    while (!noted.calls)
        OK(sd_wait(copy, -1));
    OK(noted.result);
    kill(lamb->pid, SIGCONT);
}

int main(void)
{
    lamb = lamb_start_with_locks();
    while_connecting();
    dispatch_until_closed();
    end_others();
    fork_while_closing();
    give_up();
}
