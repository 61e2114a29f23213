/* Every descriptor of the library is close-on-exec, so a program that the caller starts inherits
 * none of them. */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>

#define MAX_FDS 1024

static int list_descriptors(bool open[MAX_FDS])
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    int count = 0;

    if (!dir)
        skip("no /proc/self/fd");
    for (int fd = 0; fd < MAX_FDS; fd++)
        open[fd] = false;
    while ((entry = readdir(dir))) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && fd != dirfd(dir) && fd < MAX_FDS) {
            open[fd] = true;
            count++;
        }
    }
    closedir(dir);
    return count;
}

int main(void)
{
    bool before[MAX_FDS], after[MAX_FDS];
    const char *address = server_address(); /* starts the server, whose pipe is ours */
    int count = list_descriptors(before);
    sd_t sd = connect_to_server();
    sd_vdi_t vdi = create_vdi(sd, vdi_name("a"), OBJECT);

    (void)address;
    OK(sd_vdi_write(sd, vdi, "x", 1, 0, 0));
    CHECK(list_descriptors(after) > count);
    for (int fd = 0; fd < MAX_FDS; fd++)
        if (after[fd] && !before[fd])
            CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    OK(sd_close(&sd));
    CHECK(list_descriptors(after) == count);
}
