/* An event loop of one's own: one descriptor to watch for reading, one function to call when it is
 * readable. It stays the same when the connection is lost and made again. */
#include <sheepdog.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

struct program {
    sd_vdi_t vdi;
    char text[13];
    bool ended;
};

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, sd_last_error());
        exit(1);
    }
}

/* Each step starts the next one. A callback may call anything of the library. */
static void on_read(sd_t sd, int result, void *opaque)
{
    struct program *program = opaque;

    (void)sd;
    must(result, "reading");
    printf("%s\n", program->text);
    program->ended = true;
}

static void on_written(sd_t sd, int result, void *opaque)
{
    struct program *program = opaque;

    must(result, "writing");
    must(sd_vdi_aread(sd, program->vdi, program->text, 12, 4096, on_read, program), "reading");
}

static void on_created(sd_t sd, int result, void *opaque)
{
    struct program *program = opaque;

    must(result, "creating");
    must(sd_vdi_awrite(sd, program->vdi, "hello, sheep", 12, 4096, 0, on_written, program),
         "writing");
}

int main(int argc, char **argv)
{
    struct program program = { 0 };
    struct pollfd watched = { .events = POLLIN };
    sd_t sd;

    must(sd_ainit(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    must(sd_vdi_acreate(sd, "greeting", 4 << 20, 0, false, &program.vdi, on_created, &program),
         "creating");
    watched.fd = sd_get_fd(sd);
    while (!program.ended) {
        if (poll(&watched, 1, -1) < 0 && errno != EINTR)
            return 1;
        must(sd_dispatch(sd), "dispatching");
    }
    return sd_close(&sd);
}
