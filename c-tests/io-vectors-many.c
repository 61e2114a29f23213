/* Very many small pieces: the time grows with their number, not with its square. */
#include "support.h"

#include <stdlib.h>

#define PIECES (256 * 1024)
#define SIZE 16

static uint64_t transfer(sd_t sd, sd_vdi_t vdi, const struct iovec *iov, int count)
{
    uint64_t start = monotonic_ms();

    OK(sd_vdi_writev(sd, vdi, iov, count, 0, 0));
    OK(sd_vdi_readv(sd, vdi, iov, count, 0));
    return monotonic_ms() - start;
}

int main(void)
{
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);
    struct iovec *iov = calloc(PIECES, sizeof *iov);
    unsigned char *data = malloc(OBJECT), *want = malloc(OBJECT);
    uint64_t few, many;

    CHECK(iov && data && want);
    fill(data, OBJECT, 1);
    for (size_t i = 0; i < PIECES; i++) {
        /* In an order of their own, so that no two are one. */
        size_t at = i * 7919 % PIECES;
        iov[i] = (struct iovec){ data + at * SIZE, SIZE };
        for (size_t b = 0; b < SIZE; b++)
            want[i * SIZE + b] = data[at * SIZE + b];
    }
    OK(sd_vdi_writev(sd, vdi, iov, PIECES, 0, 0)); /* the object is there */
    few = transfer(sd, vdi, iov, PIECES / 16);
    many = transfer(sd, vdi, iov, PIECES);
    CHECK_CONTENT(sd, vdi, want, OBJECT, 0);
    if (many > 16 * (few + 2) * 3)
        fail(__FILE__, __LINE__, "%d pieces: %d ms, 16 times as many: %d ms", PIECES / 16,
             (int)few, (int)many);
    OK(sd_close(&sd));
    free(iov);
    free(data);
    free(want);
}
