/* The library at run time is of the version that the header says. */
#include "support.h"

#include <stdio.h>

int main(void)
{
    char want[64];

    snprintf(want, sizeof want, "%d.%d.%d", SD_VERSION_MAJOR, SD_VERSION_MINOR, SD_VERSION_PATCH);
    CHECK_STR(sd_version(), want);
}
