#include "versions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096
#define PAUSE 40 /* writes between two snapshots */

static size_t offset_of(unsigned block)
{
    return block % VERSIONS_OBJECTS * OBJECT + block / VERSIONS_OBJECTS * 3 * BLOCK;
}

/* A version's number, then a pattern of its own; version 0 is what was never written. */
static void content(unsigned char data[BLOCK], unsigned block, unsigned version)
{
    memset(data, 0, BLOCK);
    if (version == 0)
        return;
    fill(data, BLOCK, (uint64_t)block << 32 | version);
    memcpy(data, &version, sizeof version);
}

/* Reads a block, which has to be one version entirely, and tells which. */
static unsigned read_version(sd_t sd, sd_vdi_t vdi, unsigned block)
{
    unsigned char got[BLOCK], want[BLOCK];
    unsigned version;

    OK(sd_vdi_read(sd, vdi, got, BLOCK, (off_t)offset_of(block)));
    memcpy(&version, got, sizeof version);
    content(want, block, version);
    CHECK_BYTES(got, want, BLOCK);
    return version;
}

static void *write_versions(void *opaque)
{
    struct versions *versions = opaque;
    unsigned self = atomic_fetch_add(&versions->started, 1);
    uint64_t random = self;

    while (!atomic_load(&versions->stop)) {
        unsigned mine = VERSIONS_BLOCKS / VERSIONS_THREADS;
        unsigned block = self + VERSIONS_THREADS * (unsigned)(next_random(&random) % mine);
        unsigned version = atomic_load(&versions->begun[block]) + 1;
        unsigned char data[BLOCK];

        content(data, block, version);
        atomic_store(&versions->begun[block], version);
        OK(sd_vdi_write(versions->sd, versions->vdi, data, BLOCK, (off_t)offset_of(block), 0));
        atomic_store(&versions->returned[block], version);
        if (version % 4 == 0)
            CHECK(read_version(versions->sd, versions->vdi, block) == version);

        pthread_mutex_lock(&versions->lock);
        versions->writes++;
        pthread_cond_signal(&versions->written);
        pthread_mutex_unlock(&versions->lock);
    }
    return NULL;
}

void versions_start(struct versions *versions, sd_t sd, sd_vdi_t vdi)
{
    memset(versions, 0, sizeof *versions);
    versions->sd = sd;
    versions->vdi = vdi;
    CHECK(pthread_mutex_init(&versions->lock, NULL) == 0);
    CHECK(pthread_cond_init(&versions->written, NULL) == 0);
    for (int i = 0; i < VERSIONS_THREADS; i++)
        CHECK(pthread_create(&versions->threads[i], NULL, write_versions, versions) == 0);
}

unsigned versions_wait(struct versions *versions)
{
    unsigned until;

    pthread_mutex_lock(&versions->lock);
    until = versions->writes + PAUSE;
    while (versions->writes < until)
        pthread_cond_wait(&versions->written, &versions->lock);
    until = versions->writes;
    pthread_mutex_unlock(&versions->lock);
    return until;
}

const char *versions_before_snapshot(struct versions *versions)
{
    size_t i = versions->snapshot_count;

    versions->snapshots = realloc(versions->snapshots, (i + 1) * sizeof *versions->snapshots);
    CHECK(versions->snapshots);
    snprintf(versions->snapshots[i].tag, sizeof versions->snapshots[i].tag, "tag-%zu", i);
    versions_wait(versions);
    for (int block = 0; block < VERSIONS_BLOCKS; block++)
        versions->snapshots[i].least[block] = atomic_load(&versions->returned[block]);
    return versions->snapshots[i].tag;
}

void versions_after_snapshot(struct versions *versions)
{
    size_t i = versions->snapshot_count++;

    for (int block = 0; block < VERSIONS_BLOCKS; block++)
        versions->snapshots[i].most[block] = atomic_load(&versions->begun[block]);
}

void versions_snapshot(struct versions *versions, sd_t sd, sd_vdi_t vdi)
{
    OK(sd_snapshot_create(sd, vdi, versions_before_snapshot(versions), NULL));
    versions_after_snapshot(versions);
}

void versions_finish(struct versions *versions)
{
    versions_wait(versions);
    atomic_store(&versions->stop, true);
    for (int i = 0; i < VERSIONS_THREADS; i++)
        CHECK(pthread_join(versions->threads[i], NULL) == 0);
    pthread_cond_destroy(&versions->written);
    pthread_mutex_destroy(&versions->lock);
}

void versions_check_snapshots(struct versions *versions, sd_t sd, const char *name)
{
    for (size_t i = 0; i < versions->snapshot_count; i++) {
        sd_vdi_t vdi = open_snapshot(sd, name, versions->snapshots[i].tag);

        for (unsigned block = 0; block < VERSIONS_BLOCKS; block++) {
            unsigned version = read_version(sd, vdi, block);
            if (version < versions->snapshots[i].least[block] ||
                version > versions->snapshots[i].most[block])
                fail(__FILE__, __LINE__, "block %u of snapshot %zu is version %u, not %u..%u",
                     block, i, version, versions->snapshots[i].least[block],
                     versions->snapshots[i].most[block]);
        }
        OK(sd_vdi_close(&vdi));
    }
    versions->snapshot_count = 0;
}

/* The VDI holds the last version of each block that was written. */
static void check_last(struct versions *versions, sd_t sd, sd_vdi_t vdi, const char *whose)
{
    for (unsigned block = 0; block < VERSIONS_BLOCKS; block++) {
        unsigned version = read_version(sd, vdi, block);
        if (version != versions->returned[block])
            fail(__FILE__, __LINE__, "block %u of the %s VDI is version %u, not %u", block, whose,
                 version, versions->returned[block]);
    }
}

void versions_check(struct versions *versions, sd_t sd, const char *name)
{
    sd_t third = connect_to_server();
    sd_vdi_t vdi;

    check_last(versions, versions->sd, versions->vdi, "writer's");
    versions_check_snapshots(versions, sd, name);
    free(versions->snapshots);

    /* What the servers hold, without what the writer knows. */
    OK(sd_vdi_close(&versions->vdi));
    OK(sd_vdi_open(third, name, &vdi));
    check_last(versions, third, vdi, "servers'");
    OK(sd_close(&third));
}
