/* Random writes and reads of random lengths, reopened now and then, give what an array in memory
 * gives. SD_TEST_SEED chooses another sequence. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE (3 * OBJECT + 54321)
#define STEPS 300

/* Many short ones, some that span objects. */
static size_t random_length(uint64_t *random)
{
    size_t limit = (size_t)1 << next_random(random) % 23;

    return 1 + next_random(random) % (2 * limit);
}

int main(void)
{
    const char *seed = getenv("SD_TEST_SEED"), *name = vdi_name("a");
    uint64_t random = seed ? strtoull(seed, NULL, 0) : 1;
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, name, SIZE);
    unsigned char *model = calloc(1, SIZE), *got = malloc(SIZE);

    printf("SD_TEST_SEED=%llu\n", (unsigned long long)random);
    for (int step = 0; step < STEPS; step++) {
        size_t offset = next_random(&random) % SIZE, length = random_length(&random);

        if (length > SIZE - offset)
            length = SIZE - offset;
        switch (next_random(&random) % 16) {
        case 0:
            OK(sd_vdi_close(&vdi));
            OK(sd_vdi_open(sd, name, &vdi));
            break;
        case 1:
            OK(sd_vdi_flush(sd, vdi));
            break;
        default:
            if (next_random(&random) % 2) {
                fill(model + offset, length, next_random(&random));
                OK(sd_vdi_write(sd, vdi, model + offset, length, (off_t)offset, 0));
            } else {
                memset(got, 0xa5, length);
                OK(sd_vdi_read(sd, vdi, got, length, (off_t)offset));
                CHECK_BYTES(got, model + offset, length);
            }
        }
    }
    OK(sd_vdi_read(sd, vdi, got, SIZE, 0));
    CHECK_BYTES(got, model, SIZE);
    free(model);
    free(got);
    OK(sd_close(&sd));
}
