/* sd_snapshot_aread() reads what the VDI held when the snapshot was taken, also beside writes to
 * the VDI that are in flight. */
#include "loop.h"
#include "support.h"

#include <stdlib.h>

#define REQUESTS 64
#define SIZE 4096

static struct outcome reads[REQUESTS], writes[REQUESTS], of_snapshot;

int main(void)
{
    struct loop *loop = loop_new();
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), 2 * OBJECT), snapshot;
    unsigned char *old = malloc(REQUESTS * SIZE), *new = malloc(REQUESTS * SIZE),
                  *got = poisoned(REQUESTS * SIZE), zero[SIZE];

    CHECK(old && new);
    fill(old, REQUESTS * SIZE, 1);
    fill(new, REQUESTS * SIZE, 2);
    OK(loop_attach(loop, sd));
    loop_write(loop, sd, vdi, old, REQUESTS * SIZE, 0);
    OK(sd_snapshot_create(sd, vdi, "tag", &snapshot));
    for (int i = 0; i < REQUESTS; i++) {
        OK(sd_vdi_awrite(sd, vdi, new + i * SIZE, SIZE, i * SIZE, 0, note_outcome, &writes[i]));
        OK(sd_snapshot_aread(sd, snapshot, got + i * SIZE, SIZE, i * SIZE, note_outcome,
                             &reads[i]));
    }
    TURN_UNTIL(loop, all_called(reads, REQUESTS) && all_called(writes, REQUESTS));
    for (int i = 0; i < REQUESTS; i++) {
        OK(reads[i].result);
        OK(writes[i].result);
    }
    CHECK_BYTES(got, old, REQUESTS * SIZE);
    loop_check(loop, sd, vdi, new, REQUESTS * SIZE, 0);

    OK(sd_snapshot_aread(sd, snapshot, zero, SIZE, OBJECT, note_outcome, &of_snapshot));
    TURN_UNTIL(loop, all_called(&of_snapshot, 1));
    CHECK_ZERO(zero, SIZE);

    /* A snapshot is not written. */
    of_snapshot = (struct outcome){ 0 };
    int result = sd_vdi_awrite(sd, snapshot, new, SIZE, 0, 0, note_outcome, &of_snapshot);
    if (result == SD_RES_SUCCESS) {
        TURN_UNTIL(loop, all_called(&of_snapshot, 1));
        result = of_snapshot.result;
    }
    FAILS(SD_RES_READONLY, result);
    OK(sd_close(&sd));
    loop_free(loop);
    free(old);
    free(new);
    free(got);
}
