/* Closing an sd_t gives back what it held, with VDIs still open on it: descriptors and memory.
 * (Under valgrind the leak check says the same of memory, to the byte.) */
#define _GNU_SOURCE
#include "support.h"

#include <dirent.h>
#include <malloc.h>

#define WARM_UP 5
#define ROUNDS 50

static int open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    if (!dir)
        skip("no /proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static size_t allocated(void)
{
#if defined __GLIBC__ && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    return mallinfo2().uordblks;
#else
    return 0;
#endif
}

static void use_and_close(const char *name)
{
    sd_t sd = connect_to_server();
    char data[512];
    sd_vdi_t vdi, other;

    OK(sd_vdi_open(sd, name, &vdi));
    OK(sd_vdi_open(sd, name, &other));
    OK(sd_vdi_read(sd, vdi, data, sizeof data, (off_t)OBJECT - 100));
    OK(sd_vdi_write(sd, other, data, sizeof data, (off_t)OBJECT - 100, 0));
    OK(sd_close(&sd));
}

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");

    OK(sd_vdi_create(sd, name, 2 * OBJECT, 0, false, NULL));
    OK(sd_close(&sd));
    for (int i = 0; i < WARM_UP; i++)
        use_and_close(name);

    int descriptors = open_descriptors();
    size_t memory = allocated();
    for (int i = 0; i < ROUNDS; i++)
        use_and_close(name);
    CHECK(open_descriptors() == descriptors);
    CHECK(allocated() < memory + 16 * ROUNDS);
}
