/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libsheepdog on libuv: the loop calls the callbacks of asynchronous requests.
 */

#ifndef SHEEPDOG_LIBUV_H
#define SHEEPDOG_LIBUV_H

#include <sheepdog.h>
#include <uv.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Has the event loop do what sd_dispatch() does, whenever there is work for `sd`.
 *
 * To be called in the thread that runs the loop, or before it runs; all other functions may be
 * called in any thread as ever, and need nobody to wake the loop. uv_run() does not end by itself
 * while a handle is attached. sd_detach() or sd_close() end it, also inside a callback; as with
 * every libuv handle, the loop can be closed after one more uv_run(). A program that closes all
 * handles of its loop with uv_walk() closes the library's as well, and that is as good.
 *
 * The library uses the libuv that the program has loaded, 1.x.
 *
 * Errors: SD_RES_INVALID_PARMS (`sd` is attached already, to this loop or another one),
 * SD_RES_NO_SUPPORT (there is no libuv in the process: the log says what is missing),
 * SD_RES_NO_MEM, SD_RES_SYSTEM_ERROR (libuv refused the handle).
 */
int sd_libuv_attach(sd_t sd, uv_loop_t *loop);

#ifdef __cplusplus
}
#endif

#endif /* SHEEPDOG_LIBUV_H */
