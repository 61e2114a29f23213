/* usage: hot ADDRESS FORM COUNT
 *
 * COUNT reads or writes of 4 KiB, anywhere in 16 objects that are there, in the FORM read, write,
 * aread or awrite: blocking, or asynchronous with 32 under way. Prints nothing: whoever runs it
 * counts. */
#include <sheepdog.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 4096
#define OBJECT ((size_t)4 << 20)
#define OBJECTS 16
#define DEPTH 32

struct run {
    sd_t sd;
    sd_vdi_t vdi;
    char form[8];
    unsigned long to_begin, to_end;
    uint64_t random;
};

struct request {
    struct run *run;
    unsigned char block[BLOCK];
};

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "hot: %s: %s\n", what, sd_last_error());
        exit(1);
    }
}

static off_t somewhere(struct run *run)
{
    run->random = run->random * 6364136223846793005u + 1442695040888963407u;
    return (off_t)((run->random >> 33) % (OBJECTS * OBJECT / BLOCK) * BLOCK);
}

static void begin(struct request *request);

static void ended(sd_t sd, int result, void *opaque)
{
    struct request *request = opaque;

    (void)sd;
    must(result, request->run->form);
    request->run->to_end--;
    begin(request);
}

static void begin(struct request *request)
{
    struct run *run = request->run;

    if (run->to_begin == 0)
        return;
    run->to_begin--;
    must(strcmp(run->form, "aread") == 0
             ? sd_vdi_aread(run->sd, run->vdi, request->block, BLOCK, somewhere(run), ended, request)
             : sd_vdi_awrite(run->sd, run->vdi, request->block, BLOCK, somewhere(run), 0, ended,
                             request),
         run->form);
}

int main(int argc, char **argv)
{
    static struct request requests[DEPTH];
    struct run run = { .random = 1 };
    char name[64];

    if (argc != 4) {
        fprintf(stderr, "usage: hot ADDRESS read|write|aread|awrite COUNT\n");
        return 2;
    }
    snprintf(run.form, sizeof run.form, "%s", argv[2]);
    run.to_begin = run.to_end = strtoul(argv[3], NULL, 10);
    snprintf(name, sizeof name, "hot-%ld", (long)getpid());
    must(sd_init(argv[1], &run.sd), "sd_init");
    must(sd_vdi_create(run.sd, name, OBJECTS * OBJECT, 0, false, &run.vdi), "sd_vdi_create");
    for (int i = 0; i < DEPTH; i++)
        requests[i].run = &run;
    for (int i = 0; i < OBJECTS; i++)
        must(sd_vdi_write(run.sd, run.vdi, requests[0].block, BLOCK, (off_t)(i * OBJECT), 0), "write");

    if (run.form[0] == 'a') {
        for (int i = 0; i < DEPTH; i++)
            begin(&requests[i]);
        while (run.to_end > 0)
            must(sd_wait(run.sd, -1), "sd_wait");
    } else {
        for (; run.to_begin > 0; run.to_begin--)
            must(strcmp(run.form, "read") == 0
                     ? sd_vdi_read(run.sd, run.vdi, requests[0].block, BLOCK, somewhere(&run))
                     : sd_vdi_write(run.sd, run.vdi, requests[0].block, BLOCK, somewhere(&run), 0),
                 run.form);
    }
    must(sd_vdi_close(&run.vdi), "sd_vdi_close");
    must(sd_vdi_delete(run.sd, name), "sd_vdi_delete");
    must(sd_close(&run.sd), "sd_close");
    return 0;
}
