/* Has the library tell what it does: its messages, up to a level, go to a function of the
 * program's, in whatever thread they come up. */
#include <sheepdog.h>

#include <stdio.h>
#include <stdlib.h>

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, sd_last_error());
        exit(1);
    }
}

/* Must not call the library, and may be called by several threads at once. */
static void on_message(int level, const char *message, void *opaque)
{
    static const char *const levels[] = { "", "error", "warning", "info", "debug", "trace" };

    fprintf(stderr, "sheepdog: %s: %s\n", levels[level], message);
    *(int *)opaque += 1; /* there is one thread here */
}

int main(int argc, char **argv)
{
    static int messages;
    sd_t sd;

    sd_set_log(on_message, SD_LOG_DEBUG, &messages);
    must(sd_init(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    must(sd_close(&sd), "closing");
    sd_set_log(NULL, SD_LOG_OFF, NULL);
    printf("it told %s\n", messages > 0 ? "something" : "nothing");
    return 0;
}
