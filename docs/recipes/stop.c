/* Ends cleanly on a signal: the handler wakes the thread that waits, which closes without waiting,
 * and goes on until the last callback. */
#include <sheepdog.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static sd_t sd;
static volatile sig_atomic_t stopped;

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, sd_last_error());
        exit(1);
    }
}

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
    sd_wake(sd); /* the one function that a signal handler may call */
}

static void on_closed(sd_t of, int result, void *opaque)
{
    (void)of;
    must(result, "closing");
    *(bool *)opaque = true;
}

int main(int argc, char **argv)
{
    bool closed = false;
    sd_t dispatched;

    must(sd_init(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    signal(SIGTERM, on_signal);
    raise(SIGTERM); /* so that this one ends */
    while (!stopped)
        must(sd_wait(sd, -1), "waiting");

    signal(SIGTERM, SIG_IGN); /* before the handle goes that the handler uses */
    dispatched = sd;          /* good for sd_wait() until on_closed() */
    must(sd_aclose(&sd, on_closed, &closed), "closing");
    while (!closed)
        must(sd_wait(dispatched, -1), "waiting for the end");
    printf("closed\n");
    return 0;
}
