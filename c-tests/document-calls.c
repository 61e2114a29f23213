/* Every call as the design document writes it (docs/spec.md), with the document's own types and
 * spellings, compiles without a warning and works. */
#include <sheepdog.h>

#include "support.h"

#include <string.h>

static void connection(char *addr)
{
    sd_t sd;

    OK(sd_init(addr, &sd));
    OK(sd_close(&sd));
}

static void connection_unix(char *path)
{
    sd_t sd;

    OK(sd_init_unix(path, &sd));
    OK(sd_close(&sd));
}

static void vdi(sd_t sd, const char *name, const char *opened)
{
    size_t size = 4 << 20;
    int copies = 1, flag = 0;
    bool prealloc = false;
    char buffer[512] = "written";
    void *data = buffer;
    off_t offset = 0;
    sd_vdi_t vdi;

    OK(sd_vdi_create(sd, opened, size, copies, prealloc, &vdi));
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_create(sd, name, size, copies, prealloc, NULL));
    OK(sd_vdi_open(sd, name, &vdi));
    OK(sd_vdi_write(sd, vdi, data, sizeof buffer, offset, flag));
    OK(sd_vdi_flush(sd, vdi));
    memset(buffer, 0, sizeof buffer);
    OK(sd_vdi_read(sd, vdi, data, sizeof buffer, offset));
    CHECK_STR(buffer, "written");
    OK(sd_vdi_close(&vdi));
}

static void list(sd_t sd, const char *name)
{
    struct sd_list_iter iter;
    int found = 0;

    OK(sd_vdi_list(sd, &iter));
    while (iter.has_next()) {
        char *string = iter.next_string();
        found += strcmp(string, name) == 0;
    }
    CHECK(found == 1);
    iter.destory();
}

int main(void)
{
    struct lamb *lamb = lamb_start();
    const char *name = vdi_name("a");
    sd_t sd;

    connection(lamb->tcp);
    connection_unix(lamb->unix_socket);
    OK(sd_init(lamb->tcp, &sd));
    vdi(sd, name, vdi_name("b"));
    list(sd, name);
    OK(sd_vdi_delete(sd, name));
    OK(sd_close(&sd));
    lamb_stop(lamb);
}
