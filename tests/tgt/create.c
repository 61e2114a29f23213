/* Creates a VDI, for tgtd to export.
 *
 *     create SOCKET NAME MEGABYTES */
#include <sheepdog.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    sd_t sd;
    sd_vdi_t vdi;
    int result;

    if (argc != 4) {
        fprintf(stderr, "usage: create SOCKET NAME MEGABYTES\n");
        return 2;
    }
    result = sd_init_unix(argv[1], &sd);
    if (result == SD_RES_SUCCESS) {
        result = sd_vdi_create(sd, argv[2], strtoull(argv[3], NULL, 10) << 20, 0, false, &vdi);
        sd_close(&sd); /* closes the VDI as well */
    }
    if (result != SD_RES_SUCCESS)
        fprintf(stderr, "create: %s: %s\n", argv[2], sd_strerror(result));
    return result != SD_RES_SUCCESS;
}
