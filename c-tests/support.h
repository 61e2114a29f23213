/* What every test shares: assertions, a server to talk to, names nobody else uses, patterns.
 *
 * A test is a program of its own that exits 0 when the behaviour it is named after holds and 77
 * when this machine cannot show it. A failed assertion says where, and ends the program; servers
 * and VDIs that the test made are cleaned up however it ends. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <sheepdog.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>
#include <sys/types.h>

#define KiB ((size_t)1 << 10)
#define MiB ((size_t)1 << 20)
#define OBJECT (4 * MiB) /* every cluster's default object size */

/* --- Assertions: usable from every thread --- */

#define OK(call) FAILS(SD_RES_SUCCESS, call)
#define FAILS(result, call) expect_result(__FILE__, __LINE__, #call, (call), (result))
#define CHECK(condition) \
    ((condition) ? (void)0 : fail(__FILE__, __LINE__, "does not hold: %s", #condition))
#define CHECK_STR(got, want) expect_string(__FILE__, __LINE__, #got, (got), (want))
#define CHECK_BYTES(got, want, size) \
    expect_bytes(__FILE__, __LINE__, #got, (got), (want), (size))
#define CHECK_ZERO(got, size) expect_bytes(__FILE__, __LINE__, #got, (got), NULL, (size))

/* Reads that range of a VDI or snapshot and compares it with the bytes; NULL stands for zeros. */
#define CHECK_CONTENT(sd, vdi, want, size, offset) \
    expect_content(__FILE__, __LINE__, #vdi, (sd), (vdi), (want), (size), (offset))

noreturn void fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
noreturn void skip(const char *why);
void expect_result(const char *file, int line, const char *call, int got, int want);
void expect_string(const char *file, int line, const char *what, const char *got,
                   const char *want);
/* `want` NULL stands for zeros. */
void expect_bytes(const char *file, int line, const char *what, const void *got,
                  const void *want, size_t size);
void expect_content(const char *file, int line, const char *what, sd_t sd, sd_vdi_t vdi,
                    const void *want, size_t size, size_t offset);

/* --- The server under test: SD_TEST_ADDR where it is set, else a lamb of the test's own --- */

/* host:port, or the path of a Unix socket (told apart by its slash). */
const char *server_address(void);
sd_t connect_to_server(void);

/* A VDI name that no other test and no other run uses; the VDI and its snapshots are deleted when
 * the test ends.
 * The string lives as long as the program. */
#define vdi_name(suffix) unique_name(TEST_NAME, suffix)
const char *unique_name(const char *test, const char *suffix);

/* Creates a VDI of that size and opens it. */
sd_vdi_t create_vdi(sd_t sd, const char *name, size_t size);
/* Skips the test where the servers have no object sizes other than 4 MiB: before 1.0. */
void need_object_sizes(sd_t sd);
/* Whether a VDI can be created while there are snapshots of its name alone. A recycling cluster of
 * real servers (dog cluster format -R) refuses that, as its lookups take the snapshot for it. */
bool names_come_back(sd_t sd);
/* Skips the test where they do not. */
void need_names_to_come_back(sd_t sd);
/* Skips the test with SD_TEST_KEEPS_OBJECTS in the environment: for servers that keep an object
 * which no map names any more, as those of 0.8 do (protocol.md 7.1). */
void need_removals(void);

/* Opens a VDI that another client has open; skips the test where the cluster's locks forbid that. */
sd_vdi_t open_second(sd_t sd, const char *name);
sd_vdi_t open_snapshot(sd_t sd, const char *name, const char *tag);
struct sd_vdi_info info_of(sd_vdi_t vdi);
size_t count_snapshots(sd_t sd, const char *name);

/* Writes a pattern both to the VDI and to the array that says what the VDI should hold. */
#define write_both(sd, vdi, model, offset, size, seed) \
    write_to_both(__FILE__, __LINE__, (sd), (vdi), (model), (offset), (size), (seed))
void write_to_both(const char *file, int line, sd_t sd, sd_vdi_t vdi, unsigned char *model,
                   size_t offset, size_t size, uint64_t seed);

/* --- A lamb that the test starts and ends as it likes --- */

struct lamb {
    pid_t pid;      /* 0 while it does not run */
    int output;     /* read end of its stdout */
    bool locks;     /* one client at a time can open a VDI for writing */
    char directory[64];
    char tcp[64];   /* host:port, another one after every start */
    char unix_socket[108];
};

/* Starts a server on a new directory; returns when it serves. The structure lasts as long as the
 * program. */
struct lamb *lamb_start(void);
struct lamb *lamb_start_with_locks(void);
/* kill -9; the directory stays. */
void lamb_kill(struct lamb *lamb);
/* Starts a killed one again, on its directory. */
void lamb_restart(struct lamb *lamb);
/* SIGTERM; the server has to end cleanly. */
void lamb_stop(struct lamb *lamb);

/* --- Bits and pieces --- */

/* A socket bound to a free port of 127.0.0.1, which `address` names. Until somebody listens on it
 * connections are refused, and no other program can take the port. */
int bound_socket(char address[32]);

/* The next number of a fixed sequence (splitmix64); `state` starts as the seed. */
uint64_t next_random(uint64_t *state);
/* Fills the buffer with a pattern that differs from that of every other seed. */
void fill(void *buffer, size_t size, uint64_t seed);
void *copy_of(const void *bytes, size_t size);
/* Allocates bytes that are anything but zero, so that a read which writes nothing is seen. */
void *poisoned(size_t size);

uint64_t monotonic_ms(void);

#endif
