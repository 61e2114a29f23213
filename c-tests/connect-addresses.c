/* Addresses that mean nothing are refused as such, before anything is connected to. */
#include "support.h"

#include <stdio.h>

int main(void)
{
    static const char *const malformed[] = {
        ",",           " ",            ":7000",            "host:",
        "[::1",        "[::1]7000",    "[]:7000",          "127.0.0.1:port",
        "127.0.0.1:0", "127.0.0.1:-1", "127.0.0.1:65536",  "127.0.0.1:99999999999",
        "127.0.0.1:+1", "127.0.0.1:7000x", "127.0.0.1,,::1", "127.0.0.1:7000,host:port",
    };
    sd_t sd = (sd_t)malformed;

    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        int result = sd_init(malformed[i], &sd);
        if (result != SD_RES_INVALID_PARMS)
            fail(__FILE__, __LINE__, "\"%s\" gave %s", malformed[i], sd_strerror(result));
    }
    CHECK(sd == (sd_t)malformed);
}
