/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libsheepdog on libevent: the loop calls the callbacks of asynchronous requests.
 */

#ifndef SHEEPDOG_LIBEVENT_H
#define SHEEPDOG_LIBEVENT_H

#include <event2/event.h>
#include <sheepdog.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Has the event loop do what sd_dispatch() does, whenever there is work for `sd`.
 *
 * To be called in the thread that runs the loop, or before it runs; all other functions may be
 * called in any thread as ever, and need nobody to wake the loop. event_base_dispatch() does not
 * end by itself while a handle is attached. sd_detach() or sd_close() end it, also inside a
 * callback, and so does event_base_free().
 *
 * The library uses the libevent that the program has loaded, 2.1 or later.
 *
 * Errors: SD_RES_INVALID_PARMS (`sd` is attached already, to this loop or another one),
 * SD_RES_NO_SUPPORT (there is no libevent in the process: the log says what is missing),
 * SD_RES_SYSTEM_ERROR (libevent refused the event).
 */
int sd_libevent_attach(sd_t sd, struct event_base *base);

#ifdef __cplusplus
}
#endif

#endif /* SHEEPDOG_LIBEVENT_H */
