/* readv and writev take the buffers one after the other: scattered, empty, single bytes, more of
 * them than one system call takes, and over object borders. */
#include "support.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/uio.h>

#define SIZE (2 * OBJECT + 4000)
#define VECTORS 3000

static unsigned char model[SIZE], memory[SIZE], got[SIZE];

/* Cuts `size` bytes of memory into vectors of random lengths, in reverse order, so that no two lie
 * one after the other; gives how many they are. */
static int cut(struct iovec vectors[VECTORS], unsigned char *from, size_t size, uint64_t *random)
{
    size_t average = 2 * size / VECTORS + 2;
    int count = 0;

    while (size > 0 && count < VECTORS) {
        size_t length = next_random(random) % 4 ? next_random(random) % average : 0;

        if (length > size || count == VECTORS - 1)
            length = size;
        size -= length;
        vectors[count].iov_base = length || count % 2 ? from + size : NULL;
        vectors[count++].iov_len = length;
    }
    return count;
}

static void gather(unsigned char *to, const struct iovec *vectors, int count)
{
    for (int i = 0; i < count; i++)
        for (size_t j = 0; j < vectors[i].iov_len; j++)
            *to++ = ((unsigned char *)vectors[i].iov_base)[j];
}

int main(void)
{
    static const struct { size_t offset, size; } ranges[] = {
        { 0, 1 }, { 5, 100 }, { OBJECT - 700, 1400 }, { 10, SIZE - 10 }, { OBJECT, OBJECT },
        { 0, SIZE }, { SIZE - 5, 5 }, { 512, 4096 },
    };
    static struct iovec vectors[VECTORS];
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), SIZE);
    uint64_t random = 1;

    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        size_t offset = ranges[i].offset, size = ranges[i].size;
        int count = cut(vectors, memory, size, &random);

        fill(memory, size, i);
        OK(sd_vdi_writev(sd, vdi, vectors, count, (off_t)offset, i % 2 ? SD_WRITE_FUA : 0));
        gather(model + offset, vectors, count);
        CHECK_CONTENT(sd, vdi, model, SIZE, 0);

        count = cut(vectors, memory, size, &random);
        fill(memory, size, i + 100);
        OK(sd_vdi_readv(sd, vdi, vectors, count, (off_t)offset));
        gather(got, vectors, count);
        CHECK_BYTES(got, model + offset, size);
    }

    /* Nothing at all, in three ways. */
    OK(sd_vdi_readv(sd, vdi, NULL, 0, 0));
    OK(sd_vdi_writev(sd, vdi, NULL, 0, (off_t)SIZE, 0));
    vectors[0] = vectors[1] = (struct iovec){ NULL, 0 };
    OK(sd_vdi_writev(sd, vdi, vectors, 2, 0, 0));

    vectors[0] = (struct iovec){ memory, 10 };
    vectors[1] = (struct iovec){ NULL, 10 };
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_readv(sd, vdi, vectors, 2, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_writev(sd, vdi, vectors, 2, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_writev(sd, vdi, vectors, -1, 0, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_readv(sd, vdi, vectors, INT_MIN, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_readv(sd, vdi, NULL, 1, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_writev(sd, vdi, vectors, 1, 0, 0x4000));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_writev(sd, vdi, vectors, 1, (off_t)SIZE - 9, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_readv(sd, vdi, vectors, 1, -1));
    vectors[0].iov_len = vectors[1].iov_len = SIZE_MAX / 2 + 10; /* which overflows together */
    vectors[1].iov_base = memory;
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_readv(sd, vdi, vectors, 2, 0));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_writev(sd, vdi, vectors, 2, 0, 0));
    CHECK_CONTENT(sd, vdi, model, SIZE, 0);
    OK(sd_close(&sd));
}
