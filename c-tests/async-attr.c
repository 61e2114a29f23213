/* sd_vdi_asetattr(), sd_vdi_agetattr() and sd_vdi_adelattr() do what their blocking forms do; the
 * value is copied when it is set, and written before the callback when it is got. */
#include "async.h"

#include <string.h>

#define LONGEST 65536

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a"), *none = vdi_name("none");
    static unsigned char value[LONGEST], want[LONGEST], got[LONGEST + 1];
    char small[4] = "old";

    OK(sd_vdi_create(sd, name, OBJECT, 0, false, NULL));
    fill(want, LONGEST, 1);
    memcpy(value, want, LONGEST);
    OK(sd_vdi_asetattr(sd, name, "key", value, LONGEST, NOTED));
    memset(value, 0, LONGEST); /* ours again */
    while (!noted.calls)
        OK(sd_wait(sd, -1));
    OK(noted.result);
    OK(AWAIT(sd, sd_vdi_agetattr(sd, name, "key", got, sizeof got, NOTED)));
    CHECK_BYTES(got, want, LONGEST);
    FAILS(SD_RES_BUFFER_SMALL,
          AWAIT(sd, sd_vdi_agetattr(sd, name, "key", small, sizeof small, NOTED)));
    CHECK_STR(small, "old");
    OK(AWAIT(sd, sd_vdi_asetattr(sd, name, "key", "new", 4, NOTED)));
    OK(AWAIT(sd, sd_vdi_agetattr(sd, name, "key", small, sizeof small, NOTED)));
    CHECK_STR(small, "new");
    OK(AWAIT(sd, sd_vdi_asetattr(sd, name, "empty", NULL, 0, NOTED)));
    OK(AWAIT(sd, sd_vdi_agetattr(sd, name, "empty", NULL, 0, NOTED)));

    OK(AWAIT(sd, sd_vdi_adelattr(sd, name, "key", NOTED)));
    FAILS(SD_RES_NO_OBJ, AWAIT(sd, sd_vdi_adelattr(sd, name, "key", NOTED)));
    FAILS(SD_RES_NO_OBJ, AWAIT(sd, sd_vdi_agetattr(sd, name, "key", small, 4, NOTED)));
    FAILS(SD_RES_NO_VDI, AWAIT(sd, sd_vdi_asetattr(sd, none, "key", "x", 1, NOTED)));
    FAILS(SD_RES_NO_VDI, AWAIT(sd, sd_vdi_agetattr(sd, none, "key", small, 4, NOTED)));
    FAILS(SD_RES_NO_VDI, AWAIT(sd, sd_vdi_adelattr(sd, none, "key", NOTED)));
    CHECK_STR(small, "new");
    OK(sd_close(&sd));
}
