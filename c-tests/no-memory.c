/* Without memory for what a program asks for, the call says so, and the program goes on. */
#define _GNU_SOURCE
#include "support.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

static void never(sd_t sd, int result, void *opaque)
{
    (void)sd, (void)result, (void)opaque;
    CHECK(!"a callback of what was not started");
}

int main(void)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    skip("a sanitizer needs more of the address space than the limit leaves");
#endif
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), 512 * OBJECT);
    size_t size = (size_t)1 << 30, pieces = 16 * MiB, used;
    char *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct iovec *iov = mmap(NULL, pieces * sizeof *iov, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct rlimit before, limit;
    char byte = 1;

    CHECK(data != MAP_FAILED && iov != MAP_FAILED);
    for (size_t i = 0; i < pieces; i++)
        iov[i] = (struct iovec){ &byte, 1 };
    OK(sd_set_buffer_limit(sd, (size_t)-1));
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    limit = before;
    limit.rlim_cur = (rlim_t)size + pieces * sizeof *iov + 200 * MiB;
    if (setrlimit(RLIMIT_AS, &limit) != 0 || malloc(size))
        skip("memory has no limit here");

    FAILS(SD_RES_NO_MEM, sd_vdi_awrite(sd, vdi, data, size, 0, 0, never, NULL));
    FAILS(SD_RES_NO_MEM, sd_vdi_writev(sd, vdi, iov, (int)pieces, 0, 0));
    FAILS(SD_RES_NO_MEM, sd_vdi_readv(sd, vdi, iov, (int)pieces, 0));
    FAILS(SD_RES_NO_MEM, sd_vdi_awritev(sd, vdi, iov, (int)pieces, 0, 0, never, NULL));
    OK(sd_get_buffer_usage(sd, &used));
    CHECK(used == 0);
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    OK(sd_close(&sd));
    munmap(data, size);
    munmap(iov, pieces * sizeof *iov);
}
