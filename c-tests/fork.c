/* A child that was forked has handles of its parent, and none of its own: every call says so, and
 * what it does with them, closing included, the parent does not notice, whatever other threads of
 * the parent were at. It can connect for itself. */
#define _GNU_SOURCE
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS 40
#define SIZE (64 * KiB)

static sd_t sd;
static sd_vdi_t vdi;
static atomic_bool over;

static int descriptors(void)
{
    int count = 0;

    /* Those of valgrind are above. */
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

static void never(sd_t sd, int result, void *opaque)
{
    (void)sd, (void)result, (void)opaque;
    CHECK(!"a callback in the child");
}

/* What the parent does meanwhile: each thread in a place of its own. */
static void *use(void *opaque)
{
    size_t offset = (size_t)opaque * SIZE;
    unsigned char want[SIZE], got[SIZE];

    for (uint64_t round = 0; !atomic_load(&over); round++) {
        fill(want, SIZE, offset + round);
        OK(sd_vdi_write(sd, vdi, want, SIZE, (off_t)offset, 0));
        OK(sd_vdi_read(sd, vdi, got, SIZE, (off_t)offset));
        CHECK_BYTES(got, want, SIZE);
    }
    return NULL;
}

static void in_child(int before, const char *name)
{
    sd_vdi_t other = vdi;
    struct sd_vdi_info info;
    sd_t mine;
    char byte = 1;

    alarm(30); /* a hang ends the child, and with it the test */
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, &byte, 1, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, &byte, 1, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_aread(sd, vdi, &byte, 1, 0, never, NULL));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_get_info(vdi, &info, sizeof info));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_delete(sd, name));
    FAILS(SD_RES_INVALID_PARMS, sd_dispatch(sd));
    FAILS(SD_RES_INVALID_PARMS, sd_wait(sd, 0));
    CHECK(sd_get_fd(sd) == -1);

    /* A connection of its own beside that of the parent. */
    OK(sd_init(server_address(), &mine));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(mine, vdi, &byte, 1, 0));
    OK(sd_close(&mine));

    OK(sd_vdi_close(&other));
    CHECK(other == NULL);
    OK(sd_close(&sd));
    CHECK(sd == NULL);
    CHECK(descriptors() == before);
}

static void fork_once(int before, const char *name, bool alone)
{
    pid_t child = fork();
    int status;

    CHECK(child >= 0);
    if (child == 0) {
        in_child(before, name);
        /* Without a search for leaks where the stacks of the parent's other threads are lost. */
        if (!alone)
            execlp("true", "true", (char *)NULL);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    const char *name = vdi_name("a"), *address = server_address();
    int before = descriptors();
    pthread_t threads[THREADS];

    if (strchr(address, '/'))
        skip("a Unix socket");
    sd = connect_to_server();
    vdi = create_vdi(sd, name, OBJECT);
    CHECK(sd_get_fd(sd) >= 0); /* so that there is one */
    fork_once(before, name, true);
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, use, (void *)i) == 0);
    for (int round = 0; round < ROUNDS; round++)
        fork_once(before, name, false);
    atomic_store(&over, true);
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    /* The lock, where there are locks, is still the parent's. */
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    OK(sd_close(&sd));
}
