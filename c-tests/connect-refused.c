/* A port where nobody listens is an error of sd_init, at once. */
#include "support.h"

#include <unistd.h>

int main(void)
{
    char address[32];
    int fd = bound_socket(address);
    uint64_t start = monotonic_ms();
    sd_t sd = address;

    FAILS(SD_RES_NOT_CONNECTED, sd_init(address, &sd));
    CHECK(sd == address);
    CHECK(monotonic_ms() - start < 10000);
    close(fd);
}
