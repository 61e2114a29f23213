/* An event loop of whichever library a test is linked with: loop-libev.c, loop-libevent.c,
 * loop-libuv.c, or loop-poll.c, which has none and watches the descriptor. A test that needs a loop
 * is compiled once, and linked with each. */
#ifndef LOOP_H
#define LOOP_H

#include <sheepdog.h>

#include <stdbool.h>

struct loop;

struct loop *loop_new(void);
/* With whatever is attached still attached. */
void loop_free(struct loop *loop);

/* The result of sd_..._attach(). */
int loop_attach(struct loop *loop, sd_t sd);
void loop_detach(struct loop *loop, sd_t sd);

/* One turn of the loop: waits for something to happen. */
void loop_turn(struct loop *loop);
/* Turns until loop_stop(), or until nothing is left that could happen. */
void loop_run(struct loop *loop);
/* To be called in a callback. */
void loop_stop(struct loop *loop);

#define TURN_UNTIL(loop, condition) \
    while (!(condition))            \
    loop_turn(loop)

/* What became of an asynchronous request. */
struct outcome {
    int calls;
    int result;
};

/* A callback that takes a struct outcome. */
void note_outcome(sd_t sd, int result, void *outcome);

/* Whether each of them has been called; fails where one was called twice. */
bool all_called(const struct outcome *outcomes, int count);

/* Starts a read or write and waits for its end, the buffer's contents compared or copied. */
void loop_write(struct loop *loop, sd_t sd, sd_vdi_t vdi, const void *data, size_t size,
                size_t offset);
void loop_check(struct loop *loop, sd_t sd, sd_vdi_t vdi, const void *want, size_t size,
                size_t offset);

#endif
