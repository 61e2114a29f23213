/* Asynchronous calls one at a time, without an event loop. */
#ifndef ASYNC_H
#define ASYNC_H

#include "support.h"

/* What the callback was told that NOTED stands for. */
struct noted {
    int calls, result;
    sd_t sd;
};
extern struct noted noted;

/* The last two arguments of an asynchronous call. */
#define NOTED note, &noted
void note(sd_t sd, int result, void *opaque);

/* The result that the callback of a call with NOTED gets: once, and not inside the call, which must
 * have returned 0. */
#define AWAIT(sd, call) await(__FILE__, __LINE__, #call, (sd), noted.calls, (call))
int await(const char *file, int line, const char *call, sd_t sd, int calls_before, int submitted);

/* Every call of administration that is asynchronous, with arguments that are good for it. */
struct administration {
    sd_t sd;
    const char *name;       /* a VDI with the attribute "key" and the snapshot "tag" */
    const char *idle;       /* another one, which is not open */
    const char *new_name;   /* none */
    sd_vdi_t vdi, snapshot; /* open */
    sd_vdi_t out;           /* where the call writes */
    struct sd_vdi_info info;
    char value[8];
};

struct administration_call {
    const char *name;
    int (*submit)(struct administration *on, sd_callback_fn *fn, void *opaque);
    bool opens;
};
extern const struct administration_call administration_calls[];
extern const size_t administration_call_count;

/* Makes what the calls need, through an `sd` that is given. */
struct administration prepare_administration(sd_t sd, const char *test, size_t number);
/* Whether no call has written anything there. */
bool is_untouched(const struct administration *on);

#endif
