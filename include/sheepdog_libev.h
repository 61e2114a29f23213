/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libsheepdog on libev: the loop calls the callbacks of asynchronous requests.
 */

#ifndef SHEEPDOG_LIBEV_H
#define SHEEPDOG_LIBEV_H

#include <ev.h>
#include <sheepdog.h>

#if !EV_MULTIPLICITY
#error "libsheepdog needs a libev with EV_MULTIPLICITY, its default"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Has the event loop do what sd_dispatch() does, whenever there is work for `sd`. EV_P_ is the
 * parameter `struct ev_loop *loop`: sd_libev_attach(EV_DEFAULT_ sd) takes the default loop, and
 * sd_libev_attach(EV_A_ sd) the one that a function was given.
 *
 * To be called in the thread that runs the loop, or before it runs; all other functions may be
 * called in any thread as ever, and need nobody to wake the loop. ev_run() does not end by itself
 * while a handle is attached. sd_detach() or sd_close() end it, also inside a callback, and so
 * does destroying the loop.
 *
 * The library uses the libev that the program has loaded, 4.04 or later.
 *
 * Errors: SD_RES_INVALID_PARMS (`sd` is attached already, to this loop or another one),
 * SD_RES_NO_SUPPORT (there is no libev in the process: the log says what is missing).
 */
int sd_libev_attach(EV_P_ sd_t sd);

#ifdef __cplusplus
}
#endif

#endif /* SHEEPDOG_LIBEV_H */
