/* sd_vdi_awrite() copies what it is given, unless SD_WRITE_NOCOPY lends it until the callback. */
#include "loop.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define REQUESTS 40

int main(void)
{
    static const size_t sizes[] = { 1, 513, 4096, 100 * KiB, OBJECT + 4096 };
    struct loop *loop = loop_new();
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), 64 * OBJECT);
    struct outcome outcomes[REQUESTS] = { { 0 } };
    unsigned char *lent[REQUESTS], *want;
    off_t offset = 0;

    OK(loop_attach(loop, sd));
    for (int i = 0; i < REQUESTS; i++) {
        size_t size = sizes[i % 5];
        unsigned char *data = malloc(size);

        CHECK(data);
        fill(data, size, (uint64_t)i);
        if (i % 3 == 0) {
            struct iovec iov[2] = { { data, size / 2 }, { data + size / 2, size - size / 2 } };

            OK(sd_vdi_awritev(sd, vdi, iov, 2, offset, 0, note_outcome, &outcomes[i]));
            memset(iov, 0xff, sizeof iov);
        } else {
            OK(sd_vdi_awrite(sd, vdi, data, size, offset, i % 3 == 1 ? SD_WRITE_NOCOPY : 0,
                             note_outcome, &outcomes[i]));
        }
        lent[i] = NULL;
        if (i % 3 == 1) {
            lent[i] = data;
        } else {
            memset(data, 0xff, size);
            free(data);
        }
        offset += (off_t)size;
    }
    TURN_UNTIL(loop, all_called(outcomes, REQUESTS));
    offset = 0;
    for (int i = 0; i < REQUESTS; i++) {
        size_t size = sizes[i % 5];

        OK(outcomes[i].result);
        CHECK(want = malloc(size));
        fill(want, size, (uint64_t)i);
        CHECK_CONTENT(sd, vdi, want, size, (size_t)offset);
        free(want);
        free(lent[i]);
        offset += (off_t)size;
    }
    OK(sd_close(&sd));
    loop_free(loop);
}
