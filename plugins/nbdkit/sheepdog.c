/* nbdkit-sheepdog-plugin: a VDI of a Sheepdog cluster as an NBD export.
 *
 * nbdkit has a thread for each request. All of them go through one connection to the cluster; a
 * request is started without waiting, and of the threads whose requests are under way one serves the
 * connection until its own has ended, and hands that over to another one. So what many clients have
 * asked for is under way at the same time, and answers that come together are handled together. */
#define _GNU_SOURCE /* asprintf */
#define NBDKIT_API_VERSION 2
#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#include <nbdkit-plugin.h>

#include <sheepdog.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- What the command line says --- */

/* Where the cluster is, as sd_init() takes it; NULL for a server on this machine. */
static char *address;
/* NULL: the name of the export chooses. */
static char *vdi_name;
/* At most one of them. */
static char *snapshot_tag;
static unsigned snapshot_id;
/* Not negative: the size that the VDI is created with where it does not exist. */
static int64_t create_size = -1;
static unsigned timeout_s;

static char *copy(const char *text, size_t len)
{
    char *copied = strndup(text, len);

    if (!copied)
        nbdkit_error("out of memory");
    return copied;
}

/* Sets an option that may be given once. */
static int set(char **option, const char *key, char *value)
{
    if (!value)
        return -1;
    if (*option) {
        nbdkit_error("%s: said twice", key);
        free(value);
        return -1;
    }
    *option = value;
    return 0;
}

/* addr=unix:PATH */
static char *unix_address(const char *path)
{
    char *made;

    if (asprintf(&made, "unix:%s", path) < 0) {
        nbdkit_error("out of memory");
        return NULL;
    }
    return made;
}

/* A part of a URI, without its escapes. */
static char *decode(const char *text, size_t len)
{
    char *decoded = copy(text, len), *to = decoded;

    if (!decoded)
        return NULL;
    for (const char *from = text; from < text + len; from++) {
        unsigned byte = (unsigned char)*from;

        if (*from == '%') {
            int used = 0;

            if (text + len - from < 3 || sscanf(from + 1, "%2x%n", &byte, &used) != 1 || used != 2
                || byte == 0) {
                nbdkit_error("uri: a %% that two hexadecimal digits do not follow");
                free(decoded);
                return NULL;
            }
            from += 2;
        }
        *to++ = (char)byte;
    }
    *to = '\0';
    return decoded;
}

static int set_snapshot_id(const char *text)
{
    if (nbdkit_parse_unsigned("id", text, &snapshot_id) == -1)
        return -1;
    if (snapshot_id == 0) {
        nbdkit_error("id: snapshots are counted from 1");
        return -1;
    }
    return 0;
}

/* sheepdog[+tcp|+unix]://[HOST[:PORT]]/VDI[?socket=PATH][#TAG-OR-ID], as QEMU wrote them. */
static int set_uri(const char *uri)
{
    static const char *const schemes[] = { "sheepdog://", "sheepdog+tcp://", "sheepdog+unix://" };
    const char *rest = NULL, *path, *end;
    char *part;
    bool is_unix = false;

    for (int i = 0; i < 3 && !rest; i++) {
        size_t len = strlen(schemes[i]);

        if (strncmp(uri, schemes[i], len) == 0) {
            rest = uri + len;
            is_unix = i == 2;
        }
    }
    path = rest ? strchr(rest, '/') : NULL;
    if (!path) {
        nbdkit_error("uri: want sheepdog[+tcp|+unix]://[host[:port]]/vdi[?socket=path][#snapshot]");
        return -1;
    }
    if (!is_unix && path > rest && set(&address, "uri", decode(rest, (size_t)(path - rest))) == -1)
        return -1;
    path++;
    end = path + strcspn(path, "?#");
    if (end > path && set(&vdi_name, "uri", decode(path, (size_t)(end - path))) == -1)
        return -1;
    if (*end == '?') {
        size_t len = strcspn(++end, "#");

        if (!is_unix || strncmp(end, "socket=", 7) != 0) {
            nbdkit_error("uri: a query is socket=path, of sheepdog+unix");
            return -1;
        }
        part = decode(end + 7, len - 7);
        if (!part || set(&address, "uri", unix_address(part)) == -1) {
            free(part);
            return -1;
        }
        free(part);
        end += len;
    } else if (is_unix) {
        nbdkit_error("uri: sheepdog+unix wants ?socket=path");
        return -1;
    }
    if (*end != '#' || end[1] == '\0')
        return 0;
    part = decode(end + 1, strlen(end + 1));
    if (!part)
        return -1;
    if (part[strspn(part, "0123456789")] != '\0')
        return set(&snapshot_tag, "uri", part);
    int result = set_snapshot_id(part);
    free(part);
    return result;
}

static int sheepdog_config(const char *key, const char *value)
{
    if (strcmp(key, "addr") == 0)
        return set(&address, key, copy(value, strlen(value)));
    if (strcmp(key, "unix") == 0) {
        char *path = nbdkit_absolute_path(value);
        int result = path ? set(&address, key, unix_address(path)) : -1;

        free(path);
        return result;
    }
    if (strcmp(key, "uri") == 0)
        return set_uri(value);
    if (strcmp(key, "vdi") == 0)
        return set(&vdi_name, key, copy(value, strlen(value)));
    if (strcmp(key, "snapshot") == 0)
        return set(&snapshot_tag, key, copy(value, strlen(value)));
    if (strcmp(key, "id") == 0)
        return set_snapshot_id(value);
    if (strcmp(key, "create") == 0)
        return (create_size = nbdkit_parse_size(value)) == -1 ? -1 : 0;
    if (strcmp(key, "timeout") == 0)
        return nbdkit_parse_unsigned(key, value, &timeout_s);
    nbdkit_error("unknown parameter: %s", key);
    return -1;
}

static int sheepdog_config_complete(void)
{
    bool is_snapshot = snapshot_tag || snapshot_id;

    if (snapshot_tag && snapshot_id) {
        nbdkit_error("either the tag of a snapshot or its id");
        return -1;
    }
    if (!vdi_name && (is_snapshot || create_size >= 0)) {
        nbdkit_error("snapshot, id and create want vdi");
        return -1;
    }
    if (is_snapshot && create_size >= 0) {
        nbdkit_error("a snapshot cannot be created here");
        return -1;
    }
    return 0;
}

#define sheepdog_config_help                                                                      \
    "addr=HOST[:PORT][,...]  The gateways of the cluster (default: localhost:7000).\n"             \
    "unix=PATH               The socket of a server on this machine.\n"                            \
    "[uri=]sheepdog://...    All in one, as QEMU wrote it.\n"                                      \
    "vdi=NAME                The VDI (default: the export's name).\n"                              \
    "snapshot=TAG | id=N     A snapshot of it, read-only.\n"                                       \
    "create=SIZE             Create the VDI where it does not exist.\n"                            \
    "timeout=SECONDS         How long a request may take (default: 30)."

/* --- The cluster --- */

static sd_t sd;

/* Tells nbdkit what a call said, and why; returns -1. */
static int failed(const char *what, int result, const char *why)
{
    nbdkit_error("%s: %s", what, why);
    nbdkit_set_error(sd_result_to_errno(result));
    return -1;
}

static int check(const char *what, int result)
{
    return result == SD_RES_SUCCESS ? 0 : failed(what, result, sd_last_error());
}

/* After the fork: a connection is of the process that made it. */
static int sheepdog_after_fork(void)
{
    struct sd_init_opts opts = { .timeout_ms = timeout_s > UINT32_MAX / 1000 ? UINT32_MAX
                                                                             : timeout_s * 1000 };
    int result;

    if (check("connecting", sd_init_ex(address ? address : "localhost:7000", &opts, sizeof opts, &sd))
        == -1)
        return -1;
    if (create_size < 0)
        return 0;
    result = sd_vdi_create(sd, vdi_name, (size_t)create_size, 0, false, NULL);
    return result == SD_RES_VDI_EXIST ? 0 : check(vdi_name, result);
}

static void sheepdog_unload(void)
{
    if (sd && sd_close(&sd) != SD_RES_SUCCESS)
        nbdkit_error("closing: %s", sd_last_error());
    free(address);
    free(vdi_name);
    free(snapshot_tag);
}

/* --- Exports --- */

struct export {
    sd_vdi_t vdi;
    bool writable;
    struct sd_vdi_info info;
};

static int sheepdog_list_exports(int readonly, int default_only, struct nbdkit_exports *exports)
{
    sd_list_iter names;
    int result = 0;

    (void)readonly;
    if (vdi_name || default_only)
        return nbdkit_add_export(exports, "", vdi_name);
    if (check("listing", sd_vdi_list(sd, &names)) == -1)
        return -1;
    while (result == 0 && names.has_next())
        result = nbdkit_add_export(exports, names.next_string(), NULL);
    names.destroy();
    return result;
}

static void *sheepdog_open(int readonly)
{
    const char *name = vdi_name ? vdi_name : nbdkit_export_name();
    struct export *export = calloc(1, sizeof *export);
    int result;

    if (!export || !name) {
        nbdkit_error("out of memory");
        free(export);
        return NULL;
    }
    if (*name == '\0') {
        nbdkit_error("neither vdi= nor the name of an export says which VDI");
        nbdkit_set_error(ENOENT);
        free(export);
        return NULL;
    }
    if (snapshot_tag || snapshot_id)
        result = sd_snapshot_open(sd, name, snapshot_tag, (int)snapshot_id, &export->vdi);
    else if (readonly)
        result = sd_vdi_open_ro(sd, name, &export->vdi);
    else
        result = sd_vdi_open(sd, name, &export->vdi);
    if (check(name, result) == -1) {
        free(export);
        return NULL;
    }
    if (check(name, sd_vdi_get_info(export->vdi, &export->info, sizeof export->info)) == -1) {
        sd_vdi_close(&export->vdi);
        free(export);
        return NULL;
    }
    export->writable = !readonly && !snapshot_tag && !snapshot_id;
    return export;
}

static void sheepdog_close(void *handle)
{
    struct export *export = handle;

    check("closing a VDI", sd_vdi_close(&export->vdi));
    free(export);
}

static int64_t sheepdog_get_size(void *handle)
{
    const struct export *export = handle;

    return (int64_t)export->info.size;
}

static int sheepdog_can_write(void *handle)
{
    const struct export *export = handle;

    return export->writable;
}

static int yes(void *handle)
{
    (void)handle;
    return 1;
}

static int sheepdog_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

static int sheepdog_can_cache(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_NATIVE;
}

static int sheepdog_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
                               uint32_t *maximum)
{
    (void)handle;
    *minimum = 1;
    *preferred = 4096;
    *maximum = UINT32_MAX;
    return 0;
}

/* --- Requests --- */

/* A request under way, in the thread that waits for it. */
struct request {
    int result;
    bool done;
    char *why;
    pthread_cond_t wake;
    struct request *next;
    struct request **link;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* One of the threads is in sd_wait(). */
static bool served;
/* Those that wait to be told, or to serve. */
static struct request *waiting;

static void end(sd_t of, int result, void *opaque)
{
    struct request *request = opaque;
    char *why = result == SD_RES_SUCCESS ? NULL : strdup(sd_last_error());

    (void)of;
    pthread_mutex_lock(&lock);
    request->result = result;
    request->why = why;
    request->done = true;
    pthread_cond_signal(&request->wake);
    pthread_mutex_unlock(&lock);
}

/* Waits for a request that was started, and serves the connection where nobody does. */
static int await(const char *what, struct request *request)
{
    int result;

    pthread_mutex_lock(&lock);
    while (!request->done) {
        if (!served) {
            served = true;
            pthread_mutex_unlock(&lock);
            sd_wait(sd, -1);
            pthread_mutex_lock(&lock);
            served = false;
            continue;
        }
        request->next = waiting;
        request->link = &waiting;
        if (waiting)
            waiting->link = &request->next;
        waiting = request;
        pthread_cond_wait(&request->wake, &lock);
        *request->link = request->next;
        if (request->next)
            request->next->link = request->link;
    }
    if (!served && waiting)
        pthread_cond_signal(&waiting->wake);
    pthread_mutex_unlock(&lock);
    pthread_cond_destroy(&request->wake);
    if (request->result == SD_RES_SUCCESS)
        return 0;
    result = failed(what, request->result,
                    request->why ? request->why : sd_strerror(request->result));
    free(request->why);
    return result;
}

static int sheepdog_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    const struct export *export = handle;
    struct request request = { .wake = PTHREAD_COND_INITIALIZER };
    int result =
        sd_vdi_aread(sd, export->vdi, buf, count, (off_t)offset, end, &request);

    (void)flags;
    if (result == SD_RES_SUCCESS)
        return await("read", &request);
    /* Too much is under way: one that waits takes no memory. */
    if (result == SD_RES_NO_MEM)
        result = sd_vdi_read(sd, export->vdi, buf, count, (off_t)offset);
    return check("read", result);
}

static int sheepdog_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
                           uint32_t flags)
{
    const struct export *export = handle;
    struct request request = { .wake = PTHREAD_COND_INITIALIZER };
    const int flag = flags & NBDKIT_FLAG_FUA ? SD_WRITE_FUA : 0;
    int result = sd_vdi_awrite(sd, export->vdi, buf, count, (off_t)offset,
                               flag | SD_WRITE_NOCOPY, end, &request);

    if (result == SD_RES_SUCCESS)
        return await("write", &request);
    if (result == SD_RES_NO_MEM)
        result = sd_vdi_write(sd, export->vdi, buf, count, (off_t)offset, flag);
    return check("write", result);
}

static int sheepdog_flush(void *handle, uint32_t flags)
{
    const struct export *export = handle;

    (void)flags;
    return check("flush", sd_vdi_flush(sd, export->vdi));
}

static int sheepdog_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    const struct export *export = handle;
    const int flag = flags & NBDKIT_FLAG_FUA ? SD_WRITE_FUA : 0;

    return check("trim", sd_vdi_discard_ex(sd, export->vdi, (off_t)offset, count, flag));
}

static int sheepdog_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    const struct export *export = handle;
    const uint64_t object = export->info.object_size, end = offset + count;
    int flag = flags & NBDKIT_FLAG_FUA ? SD_WRITE_FUA : 0;

    if (!(flags & NBDKIT_FLAG_MAY_TRIM))
        flag |= SD_WRITE_KEEP;
    /* Without a byte written: whole objects are freed. */
    if (flags & NBDKIT_FLAG_FAST_ZERO
        && (flag & SD_WRITE_KEEP || offset % object != 0
            || (end % object != 0 && end != export->info.size))) {
        nbdkit_set_error(EOPNOTSUPP);
        return -1;
    }
    return check("zero", sd_vdi_write_zeroes(sd, export->vdi, (off_t)offset, count, flag));
}

struct walk {
    struct nbdkit_extents *extents;
    bool only_one;
};

static int add_extent(off_t offset, size_t len, int status, void *opaque)
{
    const struct walk *walk = opaque;
    const uint32_t type = status == SD_EXTENT_HOLE ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0;

    return nbdkit_add_extent(walk->extents, (uint64_t)offset, len, type) == -1 || walk->only_one;
}

static int sheepdog_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                            struct nbdkit_extents *extents)
{
    const struct export *export = handle;
    struct walk walk = { extents, flags & NBDKIT_FLAG_REQ_ONE };

    return check("extents",
                 sd_vdi_block_status(sd, export->vdi, (off_t)offset, count, add_extent, &walk));
}

/* Servers have no cache that can be asked for anything. */
static int sheepdog_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)count;
    (void)offset;
    (void)flags;
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "sheepdog",
    .longname = "nbdkit sheepdog plugin",
    .description = "VDIs and snapshots of a Sheepdog cluster",
    .version = SD_PLUGIN_VERSION,
    .config = sheepdog_config,
    .config_complete = sheepdog_config_complete,
    .config_help = sheepdog_config_help,
    .magic_config_key = "uri",
    .after_fork = sheepdog_after_fork,
    .unload = sheepdog_unload,
    .list_exports = sheepdog_list_exports,
    .open = sheepdog_open,
    .close = sheepdog_close,
    .get_size = sheepdog_get_size,
    .can_write = sheepdog_can_write,
    .can_flush = yes,
    .can_trim = yes,
    .can_zero = yes,
    .can_fast_zero = yes,
    .can_extents = yes,
    .can_multi_conn = yes,
    .can_fua = sheepdog_can_fua,
    .can_cache = sheepdog_can_cache,
    .block_size = sheepdog_block_size,
    .pread = sheepdog_pread,
    .pwrite = sheepdog_pwrite,
    .flush = sheepdog_flush,
    .trim = sheepdog_trim,
    .zero = sheepdog_zero,
    .extents = sheepdog_extents,
    .cache = sheepdog_cache,
    .errno_is_preserved = 0,
};

NBDKIT_REGISTER_PLUGIN(plugin)
