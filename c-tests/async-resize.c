/* sd_vdi_aresize() grows and shrinks as sd_vdi_resize(), also in a callback's chain. */
#include "async.h"

#include <string.h>

static unsigned char model[5 * OBJECT];
static sd_vdi_t vdi;

static void shrink(sd_t sd, int result, void *opaque)
{
    OK(result);
    OK(sd_vdi_aresize(sd, vdi, OBJECT + 10, note, opaque));
}

int main(void)
{
    sd_t sd = connect_to_server();
    uint64_t size;

    vdi = create_vdi(sd, vdi_name("a"), 2 * OBJECT);
    write_both(sd, vdi, model, 0, 2 * OBJECT, 1);
    OK(AWAIT(sd, sd_vdi_aresize(sd, vdi, 5 * OBJECT, NOTED)));
    write_both(sd, vdi, model, 3 * OBJECT, 100, 2);
    CHECK_CONTENT(sd, vdi, model, 5 * OBJECT, 0);
    OK(AWAIT(sd, sd_vdi_aresize(sd, vdi, 4 * OBJECT, shrink, &noted)));
    OK(sd_vdi_size(vdi, &size));
    CHECK(size == OBJECT + 10);
    OK(AWAIT(sd, sd_vdi_aresize(sd, vdi, 5 * OBJECT, NOTED)));
    memset(model + OBJECT + 10, 0, 4 * OBJECT - 10);
    CHECK_CONTENT(sd, vdi, model, 5 * OBJECT, 0);
    FAILS(SD_RES_INVALID_PARMS, AWAIT(sd, sd_vdi_aresize(sd, vdi, 0, NOTED)));
    OK(sd_vdi_size(vdi, &size));
    CHECK(size == 5 * OBJECT);
    OK(sd_close(&sd));
}
