/* At the buffer limit a submission gives SD_RES_NO_MEM and does nothing; there is room again once
 * requests have ended, or once the limit is raised. */
#include "loop.h"
#include "support.h"

#define SIZE (64 * KiB)
#define MOST 64

static struct outcome outcomes[MOST], refused;
static char data[MOST][SIZE];

/* Fills what room there is: how many requests it took. */
static int fill_up(sd_t sd, sd_vdi_t vdi, int from)
{
    int result = SD_RES_SUCCESS, i;

    for (i = from; i < MOST; i++) {
        outcomes[i] = (struct outcome){ 0 };
        result = i % 2 ? sd_vdi_awrite(sd, vdi, data[i], SIZE, i * (off_t)SIZE, 0, note_outcome,
                                       &outcomes[i])
                       : sd_vdi_aread(sd, vdi, data[i], SIZE, i * (off_t)SIZE, note_outcome,
                                      &outcomes[i]);
        if (result != SD_RES_SUCCESS)
            break;
    }
    FAILS(SD_RES_NO_MEM, result);
    return i;
}

int main(void)
{
    struct loop *loop = loop_new();
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), 2 * OBJECT);
    size_t limit, used;
    int count, more;

    OK(sd_get_buffer_limit(sd, &limit));
    CHECK(limit == 256 * MiB);
    OK(sd_set_buffer_limit(sd, MiB));
    OK(loop_attach(loop, sd));
    for (int round = 0; round < 5; round++) {
        count = fill_up(sd, vdi, 0);
        CHECK(count == 15); /* of 64 KiB, and a little each */
        OK(sd_get_buffer_usage(sd, &used));
        CHECK(used <= MiB && used >= 15 * SIZE);
        FAILS(SD_RES_NO_MEM, sd_vdi_aread(sd, vdi, data[0], SIZE, 0, note_outcome, &refused));
        FAILS(SD_RES_NO_MEM, sd_vdi_aread(sd, vdi, data[0], (size_t)-1 / 4, 0, note_outcome,
                                          &refused));
        /* Blocking calls are not concerned. */
        OK(sd_vdi_read(sd, vdi, data[MOST - 1], SIZE, OBJECT));

        OK(sd_set_buffer_limit(sd, 2 * MiB));
        more = fill_up(sd, vdi, count);
        CHECK(more > count);
        OK(sd_set_buffer_limit(sd, MiB)); /* below what is used */
        FAILS(SD_RES_NO_MEM, sd_vdi_aread(sd, vdi, data[0], 1, 0, note_outcome, &refused));

        TURN_UNTIL(loop, all_called(outcomes, more));
        for (int i = 0; i < more; i++)
            OK(outcomes[i].result);
        OK(sd_get_buffer_usage(sd, &used));
        CHECK(used == 0);
    }
    CHECK(refused.calls == 0);
    loop_write(loop, sd, vdi, "hello", 5, 0);
    OK(sd_close(&sd));
    loop_free(loop);
}
