/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libsheepdog: a client of the Sheepdog distributed block store.
 *
 * Generated from src/ffi by cbindgen: do not edit.
 *
 * Every function may be called from any thread. Results are SD_RES_SUCCESS (0) or another SD_RES_*
 * code, all positive: sd_strerror() names them. Out parameters come last and are written only on
 * success. A handle that is NULL, closed or garbage, a NULL pointer where one is needed, or a
 * VDI handle of another sd_t gives SD_RES_INVALID_PARMS from every function. Nothing is printed,
 * no signal is raised, and all file descriptors are close-on-exec. Sizes and offsets are in bytes.
 *
 * A pointer to memory that is not there is found out where the system does so in time, and gives
 * SD_RES_INVALID_PARMS; where the library itself copies, it raises SIGSEGV or SIGBUS, as in any
 * function of C.
 *
 * Functions of the program's, those of requests, of sd_vdi_block_status() and of sd_set_log(), must
 * return: a C++ exception that leaves one, or pthread_exit() there, ends the process with abort();
 * what longjmp() does there is undefined. While a thread is in the library, those functions
 * included, it is not cancelled: pthread_cancel() takes effect after the call. A thread whose
 * cancellation is asynchronous (PTHREAD_CANCEL_ASYNCHRONOUS) must not call the library at all.
 *
 * Signal handlers may call sd_wake(), and nothing else of the library. Those that interrupt a call
 * do not end it: what it waits for is waited for again, for the rest of the time.
 *
 * The library takes up to 64 KiB of the stack of a thread that calls it; a callback runs on top of
 * that, and a call that is made in a callback takes as much again.
 *
 * No I/O is done, and nothing waited for, by sd_strerror(), sd_result_to_errno(), sd_version(),
 * sd_last_error(), sd_set_log(), sd_set_timeout(), sd_set_buffer_limit(), sd_get_buffer_limit(),
 * sd_get_buffer_usage(), sd_get_fd(), sd_wake(), sd_detach(), the functions that attach to event
 * loops, and those of iterators. The asynchronous functions and sd_dispatch() send and receive, and
 * never wait. All others may wait for as long as sd_set_timeout() says, sd_close() for as long as
 * sd_init_ex() does.
 *
 * Where there is no memory for what a program asks for, buffers and copies, the result is
 * SD_RES_NO_MEM; where there is none for the some hundred bytes that the library needs for itself,
 * the process ends with abort().
 *
 * fork(): handles belong to the process that made them. In the child every function gives
 * SD_RES_INVALID_PARMS for a handle of its parent, and no callback is called for it; sd_close() and
 * sd_vdi_close() succeed there, but only give the child's descriptors and memory back (not the
 * memory of a handle that another thread was using at the fork), and the parent notices nothing of
 * what the child does. The child can connect for itself. A child that is forked in a callback may
 * return from it, but one that is forked in the function of sd_set_log() must not. Processes that
 * are made without the handlers of pthread_atfork(), by _Fork() or clone(), must not call the
 * library, nor may fork() be called in a signal handler that may interrupt it.
 */

#ifndef SHEEPDOG_H
#define SHEEPDOG_H


#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __GNUC__
#define SD_EXTENSION __extension__
#else
#define SD_EXTENSION
#endif

/* Offsets have 64 bits: on a 32-bit system compile with -D_FILE_OFFSET_BITS=64. */
typedef char sd_off_t_must_have_64_bits[sizeof(off_t) == 8 ? 1 : -1];

/* A connection to a cluster. */
typedef void *sd_t;

/* An open VDI or snapshot. */
typedef struct sd_inode *sd_vdi_t;

/* Called once for each asynchronous request, with its result. */
typedef void (sd_callback_fn)(sd_t sd, int result, void *opaque);

/* Receives a message of the library, without a newline; valid for the call. */
typedef void (sd_log_fn)(int level, const char *message, void *opaque);

/* Receives one extent of sd_vdi_block_status(); `status` is SD_EXTENT_*. Not 0 ends the walk. */
typedef int (sd_extent_fn)(off_t offset, size_t len, int status, void *opaque);

/* An iterator, filled in by the function that lists. Each live iterator has functions of its own,
 * which is why they take no argument. */
typedef struct sd_list_iter {
    SD_EXTENSION union {
        void *opaqe;
        void *opaque;
    };
    bool (*has_next)(void);
    SD_EXTENSION union {
        char *(*next_string)(void);
        sd_vdi_t *(*next_snapshot)(void);
    };
    SD_EXTENSION union {
        void (*destory)(void);
        void (*destroy)(void);
    };
} sd_list_iter;

/**
 * Success.
 */
#define SD_RES_SUCCESS 0

/**
 * Unknown error.
 */
#define SD_RES_UNKNOWN 1

/**
 * No object found.
 */
#define SD_RES_NO_OBJ 2

/**
 * I/O error.
 */
#define SD_RES_EIO 3

/**
 * VDI exists already.
 */
#define SD_RES_VDI_EXIST 4

/**
 * Invalid parameters.
 */
#define SD_RES_INVALID_PARMS 5

/**
 * System error.
 */
#define SD_RES_SYSTEM_ERROR 6

/**
 * VDI is already locked.
 */
#define SD_RES_VDI_LOCKED 7

/**
 * No VDI found.
 */
#define SD_RES_NO_VDI 8

/**
 * No base VDI found.
 */
#define SD_RES_NO_BASE_VDI 9

/**
 * Failed to read from the requested VDI.
 */
#define SD_RES_VDI_READ 10

/**
 * Failed to write to the requested VDI.
 */
#define SD_RES_VDI_WRITE 11

/**
 * Failed to read from the base VDI.
 */
#define SD_RES_BASE_VDI_READ 12

/**
 * Failed to write to the base VDI.
 */
#define SD_RES_BASE_VDI_WRITE 13

/**
 * No snapshot with the requested tag or id.
 */
#define SD_RES_NO_TAG 14

/**
 * The cluster is still starting.
 */
#define SD_RES_STARTUP 15

/**
 * VDI is not locked.
 */
#define SD_RES_VDI_NOT_LOCKED 16

/**
 * The cluster is shutting down.
 */
#define SD_RES_SHUTDOWN 17

/**
 * Out of memory.
 */
#define SD_RES_NO_MEM 18

/**
 * The maximum number of VDIs is in use.
 */
#define SD_RES_FULL_VDI 19

/**
 * Protocol version mismatch.
 */
#define SD_RES_VER_MISMATCH 20

/**
 * The server has no space for new objects.
 */
#define SD_RES_NO_SPACE 21

/**
 * The cluster is not formatted.
 */
#define SD_RES_WAIT_FOR_FORMAT 22

/**
 * The cluster waits for other nodes to join.
 */
#define SD_RES_WAIT_FOR_JOIN 23

/**
 * A node failed to join the cluster.
 */
#define SD_RES_JOIN_FAILED 24

/**
 * The cluster has too few nodes to serve requests.
 */
#define SD_RES_HALT 25

/**
 * The object is read-only.
 */
#define SD_RES_READONLY 26

/**
 * The node has incomplete information (0.9).
 */
#define SD_RES_INCOMPLETE_0_9 27

/**
 * The node is collecting cluster information (0.9).
 */
#define SD_RES_COLLECTING_CINFO_0_9 28

/**
 * The inode was invalidated by another client.
 */
#define SD_RES_INODE_INVALIDATED 29

/**
 * The request has an old epoch.
 */
#define SD_RES_OLD_NODE_VER 129

/**
 * The request has a new epoch.
 */
#define SD_RES_NEW_NODE_VER 130

/**
 * The node is not formatted.
 */
#define SD_RES_NOT_FORMATTED 131

/**
 * The creation times of the clusters differ.
 */
#define SD_RES_INVALID_CTIME 132

/**
 * Invalid epoch.
 */
#define SD_RES_INVALID_EPOCH 133

/**
 * Network error between nodes.
 */
#define SD_RES_NETWORK_ERROR 134

/**
 * No object cache found.
 */
#define SD_RES_NO_CACHE 135

/**
 * The buffer is too small.
 */
#define SD_RES_BUFFER_SMALL 136

/**
 * The cluster needs a forced recovery.
 */
#define SD_RES_FORCE_RECOVER 137

/**
 * No such backing store.
 */
#define SD_RES_NO_STORE 138

/**
 * Operation not supported.
 */
#define SD_RES_NO_SUPPORT 139

/**
 * The node is in recovery.
 */
#define SD_RES_NODE_IN_RECOVERY 140

/**
 * The node is killed.
 */
#define SD_RES_KILLED 141

/**
 * The object id exists already.
 */
#define SD_RES_OID_EXIST 142

/**
 * Try again.
 */
#define SD_RES_AGAIN 143

/**
 * The object may be stale.
 */
#define SD_RES_STALE_OBJ 144

/**
 * Cluster driver error.
 */
#define SD_RES_CLUSTER_ERROR 145

/**
 * VDI is not empty.
 */
#define SD_RES_VDI_NOT_EMPTY 146

/**
 * Not found.
 */
#define SD_RES_NOT_FOUND 147

/**
 * The node has incomplete information.
 */
#define SD_RES_INCOMPLETE 148

/**
 * The node is collecting cluster information.
 */
#define SD_RES_COLLECTING_CINFO 149

/**
 * The node is a gateway only.
 */
#define SD_RES_GATEWAY_MODE 151

/**
 * Invalid vnodes strategy.
 */
#define SD_RES_INVALID_VNODES_STRATEGY 152

/**
 * No checkpoint entry.
 */
#define SD_RES_NO_CHECKPOINT_ENTRY 153

/**
 * The call took longer than sd_set_timeout() allows.
 */
#define SD_RES_TIMEDOUT 256

/**
 * sd_close() ended the call.
 */
#define SD_RES_CANCELED 257

/**
 * The peer broke the protocol: it is no sheepdog server.
 */
#define SD_RES_BAD_REPLY 258

/**
 * No gateway reachable, or the connection broke where repeating could do harm.
 */
#define SD_RES_NOT_CONNECTED 259

/**
 * Version of this header; sd_version() tells that of the library.
 */
#define SD_VERSION_MAJOR 1

#define SD_VERSION_MINOR 0

#define SD_VERSION_PATCH 0

/**
 * Levels of sd_set_log().
 */
#define SD_LOG_OFF 0

#define SD_LOG_ERROR 1

#define SD_LOG_WARN 2

#define SD_LOG_INFO 3

#define SD_LOG_DEBUG 4

#define SD_LOG_TRACE 5

/**
 * For sd_init_opts: connect as sd_ainit(), without waiting.
 */
#define SD_INIT_ASYNC 1

/**
 * For sd_init_opts: send everything through the gateways named, as this version does anyway.
 */
#define SD_INIT_NO_ROUTING 2

/**
 * For what writes: the data is stable when the call returns, as after sd_vdi_flush().
 */
#define SD_WRITE_FUA 1

/**
 * For writing zeros: objects that are there stay, and are written to, so that later writes take no
 * new space.
 */
#define SD_WRITE_KEEP 4

/**
 * Kinds of extents.
 */
#define SD_EXTENT_HOLE 0

#define SD_EXTENT_ALLOCATED 1

/**
 * The data is a parent's: a write makes a copy of the object.
 */
#define SD_EXTENT_SHARED 2

/**
 * For asynchronous writes: the library borrows the data until the callback instead of copying it.
 */
#define SD_WRITE_NOCOPY 2

/**
 * What sd_init_ex() can be told. Zeroed, it is what sd_init() does. Grows only at its end.
 */
typedef struct sd_init_opts {
    /**
     * Milliseconds that one gateway may take until it is found, connected to and has answered once,
     * at the beginning and whenever it is connected to again. 0: 5000, or all the time of the call
     * where there is only one.
     */
    uint32_t connect_timeout_ms;
    /**
     * As sd_set_timeout(). 0: 30000; UINT32_MAX: for ever.
     */
    uint32_t timeout_ms;
    /**
     * Milliseconds that sd_close() waits at most. 0: 5000.
     */
    uint32_t close_timeout_ms;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * As sd_set_buffer_limit(). 0: 256 MiB.
     */
    uint64_t buffer_limit;
    /**
     * Of SD_INIT_ASYNC and SD_INIT_NO_ROUTING.
     */
    uint32_t flags;
    /**
     * Must be 0.
     */
    uint32_t reserved2;
} sd_init_opts;

/**
 * What sd_vdi_create_ex() can be told. Zeroed, it is what sd_vdi_create() does. Grows only at its
 * end.
 */
typedef struct sd_create_opts {
    /**
     * Bytes of an object, a power of two from 2^20 to 2^31; 0 for the cluster's default.
     */
    uint64_t object_size;
    /**
     * Copies of each object; 0 for the cluster's default.
     */
    uint8_t copies;
    /**
     * An erasure code instead of copies: 2, 4, 8 or 16 data strips, ...
     */
    uint8_t ec_data;
    /**
     * ... and 1 to 15 parity strips. Both 0: none.
     */
    uint8_t ec_parity;
    /**
     * Allocate all objects now.
     */
    bool prealloc;
    /**
     * A hypervolume, which can have up to 16 PiB with objects of 4 MiB.
     */
    bool hypervolume;
    /**
     * Must be 0.
     */
    uint8_t reserved[3];
} sd_create_opts;

/**
 * What a VDI is. Grows only at its end.
 */
typedef struct sd_vdi_info {
    /**
     * NUL-terminated.
     */
    char name[256];
    /**
     * NUL-terminated; empty unless it is a snapshot with a tag.
     */
    char tag[256];
    /**
     * Bytes.
     */
    uint64_t size;
    /**
     * Bytes of one object.
     */
    uint64_t object_size;
    /**
     * Bytes of the objects that the VDI names, those shared with others included.
     */
    uint64_t allocated;
    /**
     * Nanoseconds since the Unix epoch.
     */
    uint64_t create_time_ns;
    /**
     * Nanoseconds since the Unix epoch; 0 unless it is a snapshot.
     */
    uint64_t snap_time_ns;
    uint32_t vdi_id;
    /**
     * 0 where it has none.
     */
    uint32_t parent_vdi_id;
    uint32_t snap_id;
    /**
     * Copies of each object.
     */
    uint8_t copies;
    /**
     * 0, or the erasure code: data strips / 2 in the high half, parity strips in the low one.
     */
    uint8_t copy_policy;
    /**
     * 0, or 1 for a hypervolume.
     */
    uint8_t store_policy;
    bool is_snapshot;
    /**
     * Bytes: the sector of the disk that a VDI stands for. Reads and writes need not keep to it.
     */
    uint32_t io_min;
    /**
     * Bytes: what lies between two multiples of it is one request to the servers, and one object.
     */
    uint32_t io_opt;
    /**
     * The most bytes of one read or write: what memory can hold, in multiples of `io_min`. What is
     * asynchronous takes no more than sd_set_buffer_limit() allows, either.
     */
    uint64_t max_io;
} sd_vdi_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The meaning of a result code, in English, for any code at all. The string is constant.
 */
const char *sd_strerror(int result);

/**
 * The errno that says what a result code says, as a positive number, 0 for SD_RES_SUCCESS. EAGAIN
 * for a cluster that starts or recovers, ENXIO for one that is not formatted, EIO for whatever errno
 * has no better word for.
 */
int sd_result_to_errno(int result);

/**
 * The version of the library, as "1.0.0". The string is constant.
 */
const char *sd_version(void);

/**
 * Why this thread's last call of the library failed, in words: what it was about, what a server or
 * the system said, and which one; of a request that timed out behind something that was given up
 * before, what that is. In a callback, until it calls the library itself: why its request failed. ""
 * after a success; never NULL. The string stays until this thread's next call of the library, or its
 * end: in destructors of thread-specific data, and of the main thread in those that exit() runs, there
 * may be none any more.
 *
 * For people: what it says may be another text in another release. sd_strerror(),
 * sd_result_to_errno(), sd_version() and this function leave it as it is.
 */
const char *sd_last_error(void);

/**
 * Has `fn` called with every message of the library up to `level`, from whatever thread it comes
 * up in. For the whole process; NULL or SD_LOG_OFF ends it, as it was at the start.
 *
 * `fn` must not call the library. A call of it that another thread is in when this returns may
 * still be under way.
 */
void sd_set_log(sd_log_fn *fn, int level, void *opaque);

/**
 * Connects to a cluster through the gateways at `addr`: `host[:port]`, `[v6-address][:port]` or, for a
 * unix socket, `unix:path`; several of one cluster separated by commas, which are tried in that order,
 * and again whenever the one in use fails, or owes answers and says nothing for some seconds: that
 * one is used again when it answers. NULL or "" is 127.0.0.1:7000. All of it may also be a URI without
 * a VDI: `sheepdog://host:port`, `sheepdog+tcp://host:port`, `sheepdog+unix:///path`.
 *
 * A host's name is looked up whenever it is connected to, in a thread that lives as long as that
 * takes and takes no signals; numbers need none. Of several addresses each is tried when those before
 * it have failed or not answered for 250 ms, IPv6 and IPv4 in turn, and the first that answers is used.
 *
 * Makes one exchange with the server, so a wrong port or a cluster that is not formatted is an
 * error here and not later. On success `*sd` is a handle to pass to all other functions, from any
 * thread, until sd_close().
 *
 * Errors: SD_RES_INVALID_PARMS (malformed address), SD_RES_NOT_CONNECTED, SD_RES_TIMEDOUT,
 * SD_RES_BAD_REPLY (no sheepdog server listens there), SD_RES_WAIT_FOR_FORMAT.
 */
int sd_init(const char *addr,
            sd_t *sd);

/**
 * Connects to a cluster through the unix socket `path` of a server on this machine.
 *
 * Otherwise as sd_init().
 */
int sd_init_unix(const char *path, sd_t *sd);

/**
 * Starts to connect as sd_init(), without waiting. The first call on `*sd` reports what went
 * wrong, if anything did. Never waits, whatever the address.
 */
int sd_ainit(const char *addr, sd_t *sd);

/**
 * Connects as `opts` says; NULL is all zeros. `sizeof_opts` is `sizeof(struct sd_init_opts)` as the
 * program was compiled. `addr`, and the rest, as sd_init(), or as sd_ainit() with SD_INIT_ASYNC.
 *
 * Errors: SD_RES_INVALID_PARMS (an option, flag or reserved member that this version does not know).
 */
int sd_init_ex(const char *addr,
               const struct sd_init_opts *opts,
               size_t sizeof_opts,
               sd_t *sd);

/**
 * Starts to connect as sd_init_unix(), without waiting.
 */
int sd_ainit_unix(const char *path, sd_t *sd);

/**
 * Closes a connection and everything that belongs to it, and sets `*sd` to NULL.
 *
 * Calls that other threads are in, sd_wait() included, end with SD_RES_CANCELED, and so do
 * asynchronous requests in flight. When this returns each callback has been called and none runs
 * any more, in whatever thread: what they use may be freed. So no callback of another thread may
 * wait for the thread that closes. Legal inside a callback, which is then the one that still runs.
 * The attached event loop is detached. The VDIs opened through it are closed
 * and their locks released; a write that has returned is not affected.
 *
 * Takes as long as the callbacks that other threads are in, and the answers to what closing the VDIs
 * asks for; of a cluster that answers, some milliseconds. Waits, for 5 seconds or the
 * `close_timeout_ms` of sd_init_ex() at most, until nothing can happen any more that was asked for through `sd`
 * and given up, by a timeout or by this call. The handle is gone whatever this returns.
 *
 * Errors: SD_RES_TIMEDOUT (a server that does not answer may still carry out what it was asked
 * for; the locks of the VDIs concerned are not released).
 */
int sd_close(sd_t *sd);

/**
 * Closes a connection as sd_close(), without waiting, inside a callback or outside. `*sd` is NULL
 * when this returns 0, and its VDIs are closed; what is in flight ends with SD_RES_CANCELED. `fn`
 * is the last callback of `sd`: it is called, with what `sd` was, the result of sd_close() and
 * `opaque`, once all others have returned, from sd_dispatch() or the attached event loop. So no
 * callback may wait for it. The event loop has let go of `sd` by then, and after `fn` nothing of
 * `sd` is left.
 *
 * Until `fn` is called the connection still needs somebody to dispatch. An attached event loop
 * goes on with that. For everybody else a copy of the handle, made before, remains good for
 * sd_get_fd(), sd_dispatch(), sd_wait() and sd_wake(), and for nothing else. Calls of other threads that wait
 * already, sd_wait() included, end with SD_RES_CANCELED. `fn` is also where a program that watches
 * the descriptor has to stop: it is closed after that.
 *
 * Where this returns anything but 0, `*sd` is as it was, and `fn` will not be called:
 * SD_RES_INVALID_PARMS, SD_RES_NO_MEM (the request would pass sd_set_buffer_limit()).
 */
int sd_aclose(sd_t *sd,
              sd_callback_fn *fn,
              void *opaque);

/**
 * Bounds the time that each later call on `sd` may take, with all its requests and over
 * reconnects, in milliseconds; a call that takes longer returns SD_RES_TIMEDOUT. 0 waits for
 * ever. The default is 30000: a cluster that recovers from the loss of a node can take that long.
 *
 * What takes the longer the larger a VDI is may go on for as long as answers come, and no longer
 * than this without one: sd_vdi_delete(), sd_vdi_resize(), discards and writes of zeros,
 * sd_snapshot_rollback(), sd_snapshot_delete(), and creating a VDI with all its objects.
 *
 * A call that timed out may have been carried out, or not, or in part, and the servers may still
 * be at it. Until that is known whatever touches the same waits, and times out in its turn, so
 * that nothing older undoes what a later call was told of; everything else goes on.
 */
int sd_set_timeout(sd_t sd, unsigned int ms);

/**
 * Creates the VDI `name` of `size` bytes (1 to 2^20 objects: 4 TiB where objects have the usual
 * 4 MiB), with `copies` copies of each object, 0 for the cluster's default. `prealloc` allocates
 * all objects now instead of each at its first write; where that fails the VDI is deleted again, which
 * may take ten seconds beyond sd_set_timeout(). A non-NULL `vdi` opens it as sd_vdi_open().
 *
 * Errors: SD_RES_INVALID_PARMS (size 0 or too large, copies not in 0..31, a name that is empty or
 * longer than 255 bytes), SD_RES_VDI_EXIST, SD_RES_NO_SPACE, SD_RES_FULL_VDI. Where `vdi` is not
 * NULL and only opening failed, the VDI exists.
 */
int sd_vdi_create(sd_t sd,
                  const char *name,
                  size_t size,
                  int copies,
                  bool prealloc,
                  sd_vdi_t *vdi);

/**
 * Creates as sd_vdi_create(), without waiting, and tells as sd_vdi_aopen().
 */
int sd_vdi_acreate(sd_t sd,
                   const char *name,
                   size_t size,
                   int copies,
                   bool prealloc,
                   sd_vdi_t *vdi,
                   sd_callback_fn *fn,
                   void *opaque);

/**
 * Creates a VDI as `opts` says; NULL is all zeros. `sizeof_opts` is `sizeof(struct
 * sd_create_opts)` as the program was compiled. Otherwise as sd_vdi_create().
 */
int sd_vdi_create_ex(sd_t sd,
                     const char *name,
                     size_t size,
                     const struct sd_create_opts *opts,
                     size_t sizeof_opts,
                     sd_vdi_t *vdi);

/**
 * Creates as sd_vdi_create_ex(), without waiting, and tells as sd_vdi_aopen(). `*opts` is copied.
 */
int sd_vdi_acreate_ex(sd_t sd,
                      const char *name,
                      size_t size,
                      const struct sd_create_opts *opts,
                      size_t sizeof_opts,
                      sd_vdi_t *vdi,
                      sd_callback_fn *fn,
                      void *opaque);

/**
 * Opens the working VDI `name` for reading and writing. Takes its lock where the cluster has
 * locks; handles of one `sd` on the same VDI share it, and see each other's writes.
 *
 * A VDI has one writing `sd` at a time. On success `*vdi` is valid, in any thread, until
 * sd_vdi_close() or sd_close().
 *
 * Where the cluster has no locks, which is how servers format one unless they are told otherwise, a
 * second writer is not kept out, and nobody is told. What both write may be lost then: of an object that both write to for the first
 * time one has the data, and space may stay taken that no VDI uses any more. What one wrote alone,
 * and to objects that were there, stays.
 *
 * Errors: SD_RES_NO_VDI, SD_RES_VDI_LOCKED (another client holds the lock), SD_RES_NO_SUPPORT (a
 * kind of VDI that this library cannot write).
 */
int sd_vdi_open(sd_t sd,
                const char *name,
                sd_vdi_t *vdi);

/**
 * Opens as sd_vdi_open(), without waiting. `fn` is called with `sd`, the result and `opaque` once
 * that has ended, from sd_dispatch() or the attached event loop, never from inside this call.
 * `*vdi` is written before that, on success alone, and belongs to the library until then; all
 * other arguments may go when this returns.
 *
 * Where this returns anything but 0 nothing was started, and `fn` will not be called:
 * SD_RES_INVALID_PARMS, SD_RES_NO_MEM (the request would pass sd_set_buffer_limit()). What is
 * found out later `fn` is told, a name that does not exist for example.
 */
int sd_vdi_aopen(sd_t sd, const char *name, sd_vdi_t *vdi, sd_callback_fn *fn, void *opaque);

/**
 * Opens the working VDI `name` for reading alone, whoever has it open and locked: takes no lock,
 * and keeps nobody from taking it. What writes gives SD_RES_READONLY.
 *
 * It sees what handles of the same `sd` write. Of what another client writes it sees what went
 * to objects that were there when it opened the VDI; the rest, and the VDI that goes on where
 * that client takes a snapshot or rolls back, after sd_vdi_refresh().
 *
 * Errors: SD_RES_NO_VDI, SD_RES_NO_SUPPORT (a kind of VDI that this library cannot read).
 */
int sd_vdi_open_ro(sd_t sd, const char *name, sd_vdi_t *vdi);

/**
 * Opens as sd_vdi_open_ro(), without waiting, and tells as sd_vdi_aopen().
 */
int sd_vdi_aopen_ro(sd_t sd, const char *name, sd_vdi_t *vdi, sd_callback_fn *fn, void *opaque);

/**
 * Gives the lock of the working VDI `name` back, whoever holds it: for the lock of a client that
 * is no more. It is gone when this returns 0, or was not there.
 *
 * Nothing else tells the servers that a client is no more. One that goes on after all writes as
 * before, beside whoever takes the lock next: what both write may be lost, and so may the VDI.
 * When it closes the VDI, it releases the lock of that other client. So make sure that it has
 * ended.
 *
 * Locks that several clients share (not those of this library) are given back as far as they were
 * taken through the gateway in use: sd_vdi_open() tells whether any are left.
 *
 * Errors: SD_RES_NO_VDI.
 */
int sd_vdi_break_lock(sd_t sd, const char *name);

/**
 * Closes a handle and sets `*vdi` to NULL. The last handle of a VDI waits for writes under way in
 * other threads, and for what was given up and may still happen to the VDI, and releases the lock.
 * The handle is gone even where that fails; then the next sd_vdi_open() of the VDI, or sd_close(),
 * comes to the end of it.
 *
 * Errors: SD_RES_TIMEDOUT (the lock is still held).
 */
int sd_vdi_close(sd_vdi_t *vdi);

/**
 * Closes as sd_vdi_close(), without waiting, and tells as sd_vdi_aopen(), with the `sd` that the
 * VDI was opened through. `*vdi` is NULL, and the handle gone, when this returns 0; requests that
 * are in flight on it end as they would have.
 */
int sd_vdi_aclose(sd_vdi_t *vdi, sd_callback_fn *fn, void *opaque);

/**
 * Reads `size` bytes at byte `offset` of a VDI into `data`. Parts that were never written read as
 * zeros. Any offset and length inside the VDI will do; beyond its end nothing is transferred.
 *
 * Errors: SD_RES_INVALID_PARMS (range), SD_RES_EIO (data that should exist does not). After an
 * error the contents of `data` mean nothing.
 */
int sd_vdi_read(sd_t sd, sd_vdi_t vdi, void *data, size_t size, off_t offset);

/**
 * Writes `size` bytes from `data` to a VDI at byte `offset`, any offset and length inside the VDI.
 * `flag` is 0 or SD_WRITE_FUA. When it returns 0, later reads give these bytes, and no crash of
 * this program takes them back; sd_vdi_flush() makes them outlast a power failure of the servers.
 *
 * Where another client has taken a snapshot of the VDI meanwhile, the data goes to the new working
 * VDI, and never into the snapshot.
 *
 * Errors: SD_RES_INVALID_PARMS (range, flag), SD_RES_NO_SPACE, SD_RES_EIO, SD_RES_READONLY. After
 * an error the range may hold old data, new data, or some of both.
 */
int sd_vdi_write(sd_t sd, sd_vdi_t vdi, const void *data, size_t size, off_t offset, int flag);

/**
 * Reads into `iovcnt` buffers one after the other; otherwise as sd_vdi_read(). The buffers must
 * not overlap.
 */
int sd_vdi_readv(sd_t sd, sd_vdi_t vdi, const struct iovec *iov, int iovcnt, off_t offset);

/**
 * Writes from `iovcnt` buffers one after the other; otherwise as sd_vdi_write().
 */
int sd_vdi_writev(sd_t sd,
                  sd_vdi_t vdi,
                  const struct iovec *iov,
                  int iovcnt,
                  off_t offset,
                  int flag);

/**
 * Makes `len` bytes at `offset` read as zeros, and frees the objects that lie wholly inside; the
 * last object of the VDI counts as inside where the range reaches the VDI's end. Snapshots and
 * clones that share the objects keep them.
 */
int sd_vdi_discard(sd_t sd, sd_vdi_t vdi, off_t offset, size_t len);

/**
 * Discards as sd_vdi_discard(). `flag` is 0 or SD_WRITE_FUA.
 */
int sd_vdi_discard_ex(sd_t sd, sd_vdi_t vdi, off_t offset, size_t len, int flag);

/**
 * Writes zeros, without sending them: objects wholly inside the range are freed. `flag` is 0, or
 * has SD_WRITE_FUA or SD_WRITE_KEEP or both. With SD_WRITE_KEEP the zeros are sent, for the
 * objects that are there; where there are none nothing is allocated.
 */
int sd_vdi_write_zeroes(sd_t sd, sd_vdi_t vdi, off_t offset, size_t len, int flag);

/**
 * Makes a VDI larger or smaller. What is cut off is freed, and reads as zeros if the VDI grows
 * again. Waits for writes under way in other threads; later ones beyond the new end are refused.
 *
 * Errors: SD_RES_INVALID_PARMS (size 0 or too large, see sd_vdi_create()).
 */
int sd_vdi_resize(sd_t sd, sd_vdi_t vdi, size_t size);

/**
 * Resizes as sd_vdi_resize(), without waiting, and tells as sd_vdi_aopen().
 */
int sd_vdi_aresize(sd_t sd, sd_vdi_t vdi, size_t size, sd_callback_fn *fn, void *opaque);

/**
 * Tells what `len` bytes at `offset` consist of: calls `fn`, in this thread, for each extent in
 * turn, neighbours of one kind as one. Where `fn` returns anything but 0 the walk ends, with
 * success. `fn` may call the library.
 */
int sd_vdi_block_status(sd_t sd,
                        sd_vdi_t vdi,
                        off_t offset,
                        size_t len,
                        sd_extent_fn fn,
                        void *opaque);

/**
 * Tells as sd_vdi_block_status(), without waiting: `extent_fn` is called in the thread that
 * dispatches, for all extents, then `fn` as for sd_vdi_aopen(), both with `opaque`. Where
 * `extent_fn` closes `sd`, it is not called again, and `fn` is told SD_RES_CANCELED after it has
 * returned.
 */
int sd_vdi_ablock_status(sd_t sd,
                         sd_vdi_t vdi,
                         off_t offset,
                         size_t len,
                         sd_extent_fn extent_fn,
                         sd_callback_fn *fn,
                         void *opaque);

/**
 * Forgets what is known of a VDI's contents, so that a reader sees the objects that another `sd`
 * has allocated since it opened.
 */
int sd_vdi_refresh(sd_t sd, sd_vdi_t vdi);

/**
 * Makes every write that returned before this call stable: it outlasts a power failure. And final:
 * waits until nothing can happen to the VDI any more that was given up, or sent a second time
 * because a gateway said nothing. Before another client may write, it takes this, or the lock.
 */
int sd_vdi_flush(sd_t sd, sd_vdi_t vdi);

/**
 * Deletes the working VDI `name` and all its data; its snapshots stay. Takes as long as the VDI
 * has objects: see sd_set_timeout(). Broken off, it can be repeated.
 *
 * A lock that another client holds does not keep it from that: that client's reads give zeros or
 * errors from then on, and what it writes is gone.
 *
 * Errors: SD_RES_NO_VDI, SD_RES_VDI_LOCKED (a handle of this `sd` is open on it).
 */
int sd_vdi_delete(sd_t sd, const char *name);

/**
 * Deletes as sd_vdi_delete(), without waiting, and tells as sd_vdi_aopen().
 */
int sd_vdi_adelete(sd_t sd, const char *name, sd_callback_fn *fn, void *opaque);

/**
 * Tells what a VDI is, as the servers know it now. `sizeof_info` is `sizeof(struct sd_vdi_info)`
 * as the program was compiled: that much of `*info` is written, with zeros for what this version
 * of the library does not know.
 */
int sd_vdi_get_info(sd_vdi_t vdi, struct sd_vdi_info *info, size_t sizeof_info);

/**
 * Tells what a VDI is as sd_vdi_get_info(), without waiting, and that it has as sd_vdi_aopen(),
 * with the `sd` that the VDI was opened through.
 */
int sd_vdi_aget_info(sd_vdi_t vdi,
                     struct sd_vdi_info *info,
                     size_t sizeof_info,
                     sd_callback_fn *fn,
                     void *opaque);

/**
 * Tells how many bytes a VDI has, as far as `vdi` knows: no server is asked. What another client
 * has made of it is known after sd_vdi_refresh(), or once anything has met it.
 */
int sd_vdi_size(sd_vdi_t vdi, uint64_t *size);

/**
 * Gives the VDI `name` an attribute: `value_len` bytes (0 to 65536) under `key` (1 to 255 bytes).
 * Replaces the value where the key exists. Attributes belong to the name: snapshots do not change
 * them.
 *
 * Errors: SD_RES_NO_VDI, SD_RES_INVALID_PARMS (key or value too long, key empty).
 */
int sd_vdi_setattr(sd_t sd, const char *name, const char *key, const void *value, size_t value_len);

/**
 * Sets an attribute as sd_vdi_setattr(), without waiting, and tells as sd_vdi_aopen(). The value
 * is copied.
 */
int sd_vdi_asetattr(sd_t sd,
                    const char *name,
                    const char *key,
                    const void *value,
                    size_t value_len,
                    sd_callback_fn *fn,
                    void *opaque);

/**
 * Copies the value of an attribute to `value`, which has room for `value_len` bytes.
 * sd_vdi_attr_size() tells how long it is.
 *
 * Errors: SD_RES_NO_VDI, SD_RES_NO_OBJ (no such key), SD_RES_BUFFER_SMALL (nothing is copied).
 */
int sd_vdi_getattr(sd_t sd, const char *name, const char *key, void *value, size_t value_len);

/**
 * Gets an attribute as sd_vdi_getattr(), without waiting, and tells as sd_vdi_aopen(). `value` is
 * the library's until then.
 */
int sd_vdi_agetattr(sd_t sd,
                    const char *name,
                    const char *key,
                    void *value,
                    size_t value_len,
                    sd_callback_fn *fn,
                    void *opaque);

/**
 * Tells how many bytes the value of an attribute has.
 *
 * Errors: as sd_vdi_getattr().
 */
int sd_vdi_attr_size(sd_t sd, const char *name, const char *key, size_t *size);

/**
 * Deletes an attribute.
 *
 * Errors: SD_RES_NO_VDI, SD_RES_NO_OBJ (no such key).
 */
int sd_vdi_delattr(sd_t sd, const char *name, const char *key);

/**
 * Deletes an attribute as sd_vdi_delattr(), without waiting, and tells as sd_vdi_aopen().
 */
int sd_vdi_adelattr(sd_t sd, const char *name, const char *key, sd_callback_fn *fn, void *opaque);

/**
 * Makes what `vdi` holds now a snapshot called `tag`; `vdi` goes on as the working VDI. Waits for
 * writes under way in other threads. A non-NULL `snap_vdi` opens the snapshot.
 *
 * Where another client takes a snapshot at the same time, one of the two puts right what the
 * server makes of that; an extra snapshot without a tag may stay. Putting it right may take ten
 * seconds beyond sd_set_timeout().
 *
 * A tag that is a number is better avoided: other tools take it for the id of a snapshot.
 *
 * Errors: SD_RES_VDI_EXIST (the VDI has a snapshot with that tag), SD_RES_INVALID_PARMS (the tag
 * is empty or longer than 255 bytes), SD_RES_READONLY (`vdi` is a snapshot), SD_RES_NO_SUPPORT (a
 * hypervolume: servers do not count who shares its objects).
 */
int sd_snapshot_create(sd_t sd, sd_vdi_t vdi, const char *tag, sd_vdi_t *snap_vdi);

/**
 * Takes a snapshot as sd_snapshot_create(), without waiting, and tells as sd_vdi_aopen(). Writes
 * that are in flight when this is called may be in the snapshot or not; they end as they would
 * have.
 */
int sd_snapshot_acreate(sd_t sd,
                        sd_vdi_t vdi,
                        const char *tag,
                        sd_vdi_t *snap_vdi,
                        sd_callback_fn *fn,
                        void *opaque);

/**
 * Opens a snapshot of the VDI `name` for reading: that with `tag` where it is neither NULL nor "",
 * else that with the id `idx`. To be closed with sd_vdi_close().
 *
 * Errors: SD_RES_NO_VDI, SD_RES_NO_TAG, SD_RES_INVALID_PARMS (neither tag nor id).
 */
int sd_snapshot_open(sd_t sd, const char *name, const char *tag, int idx, sd_vdi_t *snap_vdi);

/**
 * Opens as sd_snapshot_open(), without waiting, and tells as sd_vdi_aopen().
 */
int sd_snapshot_aopen(sd_t sd,
                      const char *name,
                      const char *tag,
                      int idx,
                      sd_vdi_t *snap_vdi,
                      sd_callback_fn *fn,
                      void *opaque);

/**
 * Makes the working VDI of the snapshot's name a copy of the snapshot `vdi`: what was written
 * since is gone. The servers do it in one step. Handles of this `sd` that are open on the working
 * VDI go on, on the new content.
 *
 * Errors: SD_RES_INVALID_PARMS (`vdi` is not a snapshot), SD_RES_VDI_LOCKED (a handle of this `sd`
 * is open on the working VDI, which has another object size: it could not go on).
 */
int sd_snapshot_rollback(sd_t sd, sd_vdi_t vdi);

/**
 * Rolls back as sd_snapshot_rollback(), without waiting, and tells as sd_vdi_aopen().
 */
int sd_snapshot_arollback(sd_t sd, sd_vdi_t vdi, sd_callback_fn *fn, void *opaque);

/**
 * Reads from a snapshot: as sd_vdi_read().
 */
int sd_snapshot_read(sd_t sd, sd_vdi_t vdi, void *data, size_t size, off_t offset);

/**
 * Deletes a snapshot of the VDI `name`, named as for sd_snapshot_open(). The working VDI, other
 * snapshots and clones keep what they share with it. That another client reads it does not keep it
 * from that.
 *
 * Errors: SD_RES_NO_VDI, SD_RES_NO_TAG, SD_RES_VDI_LOCKED (a handle of this `sd` is open on it).
 */
int sd_snapshot_delete(sd_t sd, const char *name, const char *tag, int idx);

/**
 * Deletes as sd_snapshot_delete(), without waiting, and tells as sd_vdi_aopen().
 */
int sd_snapshot_adelete(sd_t sd,
                        const char *name,
                        const char *tag,
                        int idx,
                        sd_callback_fn *fn,
                        void *opaque);

/**
 * Creates the VDI `dst_name` as a copy of a snapshot, whose objects it shares until it writes to
 * them. The snapshot is the one of `src_vdi`'s name with `tag`, or with the id `idx` where the tag
 * is NULL or ""; with neither, `src_vdi` is the snapshot itself. `copies` 0 is as many as the
 * snapshot has. A non-NULL `dst_vdi` opens the clone.
 *
 * Errors: SD_RES_VDI_EXIST, SD_RES_NO_TAG, SD_RES_INVALID_PARMS (`src_vdi` is a working VDI, and
 * neither tag nor id is given).
 */
int sd_vdi_clone(sd_t sd,
                 sd_vdi_t src_vdi,
                 const char *dst_name,
                 const char *tag,
                 int idx,
                 int copies,
                 sd_vdi_t *dst_vdi);

/**
 * Clones as sd_vdi_clone(), without waiting, and tells as sd_vdi_aopen().
 */
int sd_vdi_aclone(sd_t sd,
                  sd_vdi_t src_vdi,
                  const char *dst_name,
                  const char *tag,
                  int idx,
                  int copies,
                  sd_vdi_t *dst_vdi,
                  sd_callback_fn *fn,
                  void *opaque);

/**
 * Lists the names of the working VDIs, sorted, each once, as they are now.
 *
 * On success `*iter` is an iterator of its own, to be used by one thread at a time: has_next()
 * tells whether next_string() has another name to give. A name belongs to the iterator and is
 * valid until destory() (or destroy(), the same function) frees it; nothing of the iterator may
 * be called after that. At least 256 iterators can be alive at once in a process; SD_RES_NO_MEM
 * past that.
 */
int sd_vdi_list(sd_t sd, sd_list_iter *iter);

/**
 * Lists the snapshots of the VDI `name`, in the order of their ids, as they are now.
 *
 * As sd_vdi_list(), but with next_snapshot(), which gives a pointer to a handle that the iterator
 * owns: to be used, in sd_vdi_get_info() or sd_snapshot_read() for example, until destory().
 *
 * Errors: SD_RES_NO_VDI (neither a working VDI nor a snapshot has the name).
 */
int sd_snapshot_list(sd_t sd, const char *name, sd_list_iter *iter);

/**
 * Reads as sd_vdi_read(), without waiting: `fn` is called with `sd`, the result and `opaque` once
 * the read has ended, from sd_dispatch() or the attached event loop, never from inside this call.
 * `data` is the library's until then.
 *
 * Where this returns anything but 0 nothing was started, and `fn` will not be called:
 * SD_RES_NO_MEM (the request would pass sd_set_buffer_limit()), SD_RES_INVALID_PARMS. Requests in
 * flight at the same time have no order between them.
 */
int sd_vdi_aread(sd_t sd,
                 sd_vdi_t vdi,
                 void *data,
                 size_t size,
                 off_t offset,
                 sd_callback_fn *fn,
                 void *opaque);

/**
 * Writes as sd_vdi_write(), without waiting, and tells as sd_vdi_aread(). `data` is copied, unless
 * `flag` has SD_WRITE_NOCOPY: then it is the library's until the callback.
 */
int sd_vdi_awrite(sd_t sd,
                  sd_vdi_t vdi,
                  const void *data,
                  size_t size,
                  off_t offset,
                  int flag,
                  sd_callback_fn *fn,
                  void *opaque);

/**
 * Reads as sd_vdi_readv(), and tells as sd_vdi_aread(). `iov` itself may go when this returns, the
 * buffers that it names not before the callback.
 */
int sd_vdi_areadv(sd_t sd,
                  sd_vdi_t vdi,
                  const struct iovec *iov,
                  int iovcnt,
                  off_t offset,
                  sd_callback_fn *fn,
                  void *opaque);

/**
 * Writes as sd_vdi_writev(), and tells as sd_vdi_awrite().
 */
int sd_vdi_awritev(sd_t sd,
                   sd_vdi_t vdi,
                   const struct iovec *iov,
                   int iovcnt,
                   off_t offset,
                   int flag,
                   sd_callback_fn *fn,
                   void *opaque);

/**
 * Flushes as sd_vdi_flush(), and tells as sd_vdi_aread(): covers the writes whose callbacks have
 * been called, or whose calls have returned, before this call.
 */
int sd_vdi_aflush(sd_t sd, sd_vdi_t vdi, sd_callback_fn *fn, void *opaque);

/**
 * Discards as sd_vdi_discard(), and tells as sd_vdi_aread().
 */
int sd_vdi_adiscard(sd_t sd,
                    sd_vdi_t vdi,
                    off_t offset,
                    size_t len,
                    sd_callback_fn *fn,
                    void *opaque);

/**
 * Writes zeros as sd_vdi_write_zeroes(), and tells as sd_vdi_aread().
 */
int sd_vdi_awrite_zeroes(sd_t sd,
                         sd_vdi_t vdi,
                         off_t offset,
                         size_t len,
                         int flag,
                         sd_callback_fn *fn,
                         void *opaque);

/**
 * Reads from a snapshot: as sd_vdi_aread().
 */
int sd_snapshot_aread(sd_t sd,
                      sd_vdi_t vdi,
                      void *data,
                      size_t size,
                      off_t offset,
                      sd_callback_fn *fn,
                      void *opaque);

/**
 * Bounds the memory of asynchronous requests in flight: the sizes of their buffers, and 4 KiB for
 * each. A submission that would pass it returns SD_RES_NO_MEM and does nothing. The default is 256
 * MiB. Shrinking it below what is used refuses new requests until enough of the old have ended.
 */
int sd_set_buffer_limit(sd_t sd, size_t limit);

/**
 * Tells the limit of sd_set_buffer_limit().
 */
int sd_get_buffer_limit(sd_t sd, size_t *limit);

/**
 * Tells how much of the limit is used now: 0 where no request is in flight.
 */
int sd_get_buffer_usage(sd_t sd, size_t *used);

/**
 * The file descriptor that is readable when there is work for sd_dispatch(); -1 where `sd` is not
 * valid. It stays the same until sd_close() returns, or calls the function of sd_aclose(), over
 * reconnects too. To be watched for reading in any event loop; nothing else may be done with it.
 *
 * Level triggered, that is all. Edge triggered (EPOLLET), each edge asks for sd_dispatch() again and
 * again until poll() says that the descriptor is not readable: one call does a bounded part of the
 * work, and what is left makes no other edge.
 */
int sd_get_fd(sd_t sd);

/**
 * Does the work that there is: receives, sends, and calls the callbacks of requests that have
 * ended. Never blocks. Any callback may close `sd`.
 */
int sd_dispatch(sd_t sd);

/**
 * Waits up to `timeout_ms` milliseconds, or for ever where that is negative, for work, and does
 * it. SD_RES_TIMEDOUT where there was none. Legal inside a callback, for other requests; so is
 * polling the descriptor there, as nested event loops do.
 */
int sd_wait(sd_t sd, int timeout_ms);

/**
 * Undoes sd_libev_attach(), sd_libevent_attach() or sd_libuv_attach(): the loop calls nothing of
 * `sd` any more, once the dispatch has ended that it may be in, and `sd` may be attached again.
 * Requests in flight go on, and end once something dispatches. Does nothing where `sd` is not
 * attached, or where its loop has been destroyed.
 *
 * Only the loop itself takes out what it watches, whichever thread runs it: at the end of the
 * callback that this is called in, otherwise in its next turn, which this brings about. A loop that
 * has nothing else to do ends with that turn. One that does not run again may be destroyed as it
 * is, as it may before sd_detach(); libuv lets a loop be closed only after that turn.
 */
int sd_detach(sd_t sd);

/**
 * Has one sd_wait() on `sd` return 0: one that another thread is in, or the next one; each call,
 * one. For a thread that waits there for the program's own events as well. May be called from any
 * thread, and in a signal handler: it takes no lock and no memory, leaves errno as it is, and
 * sd_last_error() too. Does nothing to event loops, which have wake-ups of their own.
 *
 * Errors: SD_RES_INVALID_PARMS (`sd` is not valid).
 */
int sd_wake(sd_t sd);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SHEEPDOG_H */
