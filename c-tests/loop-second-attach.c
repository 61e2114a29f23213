/* A handle is attached to one loop at a time, and what an attach refuses changes nothing. */
#include "loop.h"
#include "support.h"

int main(void)
{
    struct loop *loop = loop_new(), *other = loop_new();
    sd_t sd = connect_to_server(), closed = connect_to_server(), copy = closed;
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);

    OK(loop_attach(loop, sd));
    FAILS(SD_RES_INVALID_PARMS, loop_attach(loop, sd));
    FAILS(SD_RES_INVALID_PARMS, loop_attach(other, sd));
    loop_run(other); /* nothing is attached there */
    loop_write(loop, sd, vdi, "hello", 5, 100);
    loop_check(loop, sd, vdi, "hello", 5, 100);

    OK(sd_close(&closed));
    FAILS(SD_RES_INVALID_PARMS, loop_attach(loop, copy));
    FAILS(SD_RES_INVALID_PARMS, loop_attach(loop, NULL));
    FAILS(SD_RES_INVALID_PARMS, loop_attach(NULL, sd));

    loop_detach(loop, sd);
    FAILS(SD_RES_INVALID_PARMS, loop_attach(NULL, sd));
    OK(loop_attach(other, sd));
    loop_check(other, sd, vdi, "hello", 5, 100);
    OK(sd_close(&sd));
    loop_free(loop);
    loop_free(other);
}
