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

static void attributes(sd_t sd, const char *name)
{
    const char *key = "key";
    char buffer[] = "value", got[sizeof buffer];
    void *value = buffer;
    size_t value_len = sizeof buffer;

    OK(sd_vdi_setattr(sd, name, key, value, value_len));
    value = got;
    OK(sd_vdi_getattr(sd, name, key, value, value_len));
    CHECK_STR(got, "value");
    OK(sd_vdi_delattr(sd, name, key));
}

static void snapshots(sd_t sd, const char *name, const char *dst_name)
{
    const char *tag = "tag";
    int idx = 0, copies = 1, found = 0;
    size_t size = 8 << 20, len = 4 << 20;
    off_t offset = 0;
    char buffer[512];
    void *data = buffer;
    struct sd_list_iter iter;
    sd_vdi_t vdi, snap_vdi, src_vdi, dst_vdi;

    OK(sd_vdi_open(sd, name, &vdi));
    OK(sd_snapshot_create(sd, vdi, tag, &snap_vdi));
    OK(sd_vdi_resize(sd, vdi, size));
    OK(sd_vdi_discard(sd, vdi, offset, len));
    OK(sd_vdi_close(&snap_vdi));
    OK(sd_snapshot_open(sd, name, tag, idx, &snap_vdi));
    OK(sd_snapshot_read(sd, snap_vdi, data, sizeof buffer, offset));
    CHECK_STR(buffer, "written");
    src_vdi = vdi;
    OK(sd_vdi_clone(sd, src_vdi, dst_name, tag, idx, copies, &dst_vdi));
    OK(sd_snapshot_rollback(sd, snap_vdi));
    OK(sd_snapshot_list(sd, name, &iter));
    while (iter.has_next()) {
        sd_vdi_t *snapshot = iter.next_snapshot();
        found++;
        OK(sd_snapshot_read(sd, *snapshot, data, sizeof buffer, offset));
    }
    CHECK(found == 1);
    iter.destory();
    OK(sd_vdi_close(&dst_vdi));
    OK(sd_vdi_close(&snap_vdi));
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
    attributes(sd, name);
    snapshots(sd, name, vdi_name("clone"));
    OK(sd_vdi_delete(sd, name));
    OK(sd_close(&sd));
    lamb_stop(lamb);
}
