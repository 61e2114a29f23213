/* Threads that write numbered versions of many blocks to one VDI, so that whatever a snapshot or
 * the VDI itself holds afterwards can be told apart: what had to be there, what could be, what
 * could not. */
#ifndef VERSIONS_H
#define VERSIONS_H

#include "support.h"

#include <pthread.h>
#include <stdatomic.h>

#define VERSIONS_OBJECTS 6
#define VERSIONS_SIZE (VERSIONS_OBJECTS * OBJECT)
#define VERSIONS_THREADS 4
#define VERSIONS_BLOCKS (VERSIONS_OBJECTS * VERSIONS_THREADS * 2) /* each in one object */

struct versions {
    sd_t sd;
    sd_vdi_t vdi;
    pthread_t threads[VERSIONS_THREADS];
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t written;
    unsigned writes; /* under the lock: all that have returned */
    atomic_uint started, begun[VERSIONS_BLOCKS], returned[VERSIONS_BLOCKS];
    struct {
        char tag[16];
        unsigned least[VERSIONS_BLOCKS], most[VERSIONS_BLOCKS];
    } *snapshots;
    size_t snapshot_count;
};

/* The threads write through `sd` to `vdi`, which is new, until versions_finish(). */
void versions_start(struct versions *versions, sd_t sd, sd_vdi_t vdi);
/* Lets the threads write for a while; gives how often they have. */
unsigned versions_wait(struct versions *versions);
/* Lets the threads write for a while, then takes a snapshot through another handle on the VDI. */
void versions_snapshot(struct versions *versions, sd_t sd, sd_vdi_t vdi);
/* The same in two steps: somebody else takes the snapshot, with that tag, between them. */
const char *versions_before_snapshot(struct versions *versions);
void versions_after_snapshot(struct versions *versions);
/* The snapshots since the last call hold what they have to. */
void versions_check_snapshots(struct versions *versions, sd_t sd, const char *name);
void versions_finish(struct versions *versions);
/* So do those that are left, and the VDI. Closes the VDI. */
void versions_check(struct versions *versions, sd_t sd, const char *name);

#endif
