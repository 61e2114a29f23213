/* The library prints nothing: standard output and standard error stay empty, errors included. */
#include "support.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void)
{
    char address[32], data[10];
    int fd = bound_socket(address), terminal[2] = { dup(1), dup(2) };
    FILE *output = tmpfile();
    struct stat st;
    sd_t sd = connect_to_server(), none;
    sd_vdi_t vdi;

    CHECK(output && dup2(fileno(output), 1) == 1 && dup2(fileno(output), 2) == 2);
    int refused = sd_init(address, &none);
    int created = sd_vdi_create(sd, vdi_name("a"), OBJECT, 0, true, &vdi);
    int bounds = sd_vdi_read(sd, vdi, data, 1, -1);
    int closed = sd_close(&sd);
    int stale = sd_vdi_close(&vdi);
    fflush(NULL);
    CHECK(dup2(terminal[0], 1) == 1 && dup2(terminal[1], 2) == 2);

    FAILS(SD_RES_NOT_CONNECTED, refused);
    OK(created);
    FAILS(SD_RES_INVALID_PARMS, bounds);
    OK(closed);
    FAILS(SD_RES_INVALID_PARMS, stale);
    CHECK(fstat(fileno(output), &st) == 0 && st.st_size == 0);
    fclose(output);
    close(fd);
    close(terminal[0]);
    close(terminal[1]);
}
