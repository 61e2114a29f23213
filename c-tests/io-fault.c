/* A buffer that is not memory is an error of the call that names it, at once, and of no other. The
 * connection stays, except for the first time that the kernel finds out when a part is sent. */
#define _GNU_SOURCE
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static sd_t sd;
static sd_vdi_t vdi;
static atomic_bool over;
static atomic_int losses;

static void count_losses(int level, const char *message, void *opaque)
{
    (void)level, (void)opaque;
    if (strstr(message, "ended:"))
        atomic_fetch_add(&losses, 1);
}

static void *use(void *opaque)
{
    char data[4096];

    while (!atomic_load(&over)) {
        uint64_t start = monotonic_ms();
        fill(data, sizeof data, start);
        OK(sd_vdi_write(sd, vdi, data, sizeof data, (off_t)OBJECT, 0));
        CHECK_CONTENT(sd, vdi, data, sizeof data, OBJECT);
        CHECK(monotonic_ms() - start < 10000);
    }
    return opaque;
}

/* `size` bytes of which those from `good` on are not there: a file that is cut off. */
static char *truncated(size_t good, size_t size)
{
    char path[] = "/tmp/io-fault-XXXXXX";
    int fd = mkstemp(path);
    char *map;

    CHECK(fd >= 0 && unlink(path) == 0 && ftruncate(fd, (off_t)size) == 0);
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    fill(map, good, 7);
    CHECK(ftruncate(fd, (off_t)good) == 0);
    close(fd);
    return map;
}

/* `size` bytes of which those from `good` on must not be touched. */
static char *guarded(size_t good, size_t size)
{
    char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(map != MAP_FAILED);
    fill(map, good, 7);
    CHECK(mprotect(map + good, size - good, PROT_NONE) == 0);
    return map;
}

static void note(sd_t sd, int result, void *opaque)
{
    (void)sd;
    *(int *)opaque = result;
}

int main(void)
{
    static const size_t sizes[] = { 4096, 64 * KiB, MiB, OBJECT };
    pthread_t thread;
    char *model = calloc(1, OBJECT);

    CHECK(model);
    if (getenv("LD_PRELOAD") && strstr(getenv("LD_PRELOAD"), "vgpreload"))
        skip("valgrind takes what this test does for a fault");
    sd_set_log(count_losses, SD_LOG_WARN, NULL);
    sd = connect_to_server();
    vdi = create_vdi(sd, vdi_name("a"), 2 * OBJECT);
    fill(model, OBJECT, 1);
    OK(sd_vdi_write(sd, vdi, model, OBJECT, 0, 0));
    CHECK(pthread_create(&thread, NULL, use, NULL) == 0);

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i];
        char *nothing = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char *half = truncated(size / 8192 * 4096, size);
        char *guard = guarded(size / 8192 * 4096, size);
        struct iovec iov[2] = { { model, 100 }, { nothing, size - 100 } };
        int result = -1;
        uint64_t start;

        CHECK(nothing != MAP_FAILED);
        start = monotonic_ms();
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, nothing, size, 0, 0));
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, half, size, 0, 0));
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_write(sd, vdi, guard, size, 0, 0));
        FAILS(SD_RES_INVALID_PARMS, sd_vdi_writev(sd, vdi, iov, 2, 0, 0));
        CHECK(monotonic_ms() - start < 10000);
        OK(sd_vdi_awrite(sd, vdi, model, 1, 0, SD_WRITE_NOCOPY, note, &result));
        while (result == -1)
            OK(sd_wait(sd, -1));
        OK(result);
        result = -1;
        if (size < 64 * KiB) {
            OK(sd_vdi_awrite(sd, vdi, nothing, size, 0, SD_WRITE_NOCOPY, note, &result));
            while (result == -1)
                OK(sd_wait(sd, -1));
            FAILS(SD_RES_INVALID_PARMS, result);
        }
        /* What is smaller the library copies, as memcpy() does. */
        if (size >= 64 * KiB) {
            FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, (void *)4096, 64 * KiB, 0));
            FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, half, size, 0));
            FAILS(SD_RES_INVALID_PARMS, sd_vdi_read(sd, vdi, guard, size, 0));
        }
        CHECK_CONTENT(sd, vdi, model, OBJECT, 0);
        munmap(nothing, size);
        munmap(half, size);
        munmap(guard, size);
    }
    atomic_store(&over, true);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(atomic_load(&losses) <= 1);
    OK(sd_close(&sd));
    free(model);
}
