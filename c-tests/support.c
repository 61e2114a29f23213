#define _GNU_SOURCE /* mkdtemp, nftw, pipe2 */
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#define SKIPPED 77
#define MAX_LAMBS 4
#define MAX_NAMES 256
#define MAX_SNAPSHOTS 1024

static struct lamb lambs[MAX_LAMBS];
static size_t lamb_count;
static char *names[MAX_NAMES];
static size_t name_count;

/* --- Assertions --- */

noreturn void fail(const char *file, int line, const char *format, ...)
{
    static pthread_mutex_t failing = PTHREAD_MUTEX_INITIALIZER;
    const char *base = strrchr(file, '/');
    va_list args;

    /* Never unlocked: the first thread that fails ends the program, the others wait for that. */
    pthread_mutex_lock(&failing);
    fprintf(stderr, "%s:%d: ", base ? base + 1 : file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

noreturn void skip(const char *why)
{
    printf("skipped: %s\n", why);
    exit(SKIPPED);
}

void expect_result(const char *file, int line, const char *call, int got, int want)
{
    if (got != want)
        fail(file, line, "%s gave %#x (%s), expected %#x (%s); the last error: %s", call,
             (unsigned)got, sd_strerror(got), (unsigned)want, sd_strerror(want), sd_last_error());
}

void expect_string(const char *file, int line, const char *what, const char *got,
                   const char *want)
{
    if (!got || strcmp(got, want) != 0)
        fail(file, line, "%s is \"%s\", expected \"%s\"", what, got ? got : "(null)", want);
}

void expect_bytes(const char *file, int line, const char *what, const void *got,
                  const void *want, size_t size)
{
    const unsigned char *g = got, *w = want;

    for (size_t i = 0; i < size; i++) {
        unsigned char expected = w ? w[i] : 0;
        if (g[i] != expected)
            fail(file, line, "%s[%zu] is %#x, expected %#x (of %zu bytes)", what, i, g[i],
                 expected, size);
    }
}

void expect_content(const char *file, int line, const char *what, sd_t sd, sd_vdi_t vdi,
                    const void *want, size_t size, size_t offset)
{
    unsigned char *got = poisoned(size);

    expect_result(file, line, what, sd_vdi_read(sd, vdi, got, size, (off_t)offset),
                  SD_RES_SUCCESS);
    expect_bytes(file, line, what, got, want, size);
    free(got);
}

/* --- Ending: registered before anything exists that would outlive the program --- */

/* How many snapshots there are, and the ids of the first MAX_SNAPSHOTS. */
static size_t list_snapshots(sd_t sd, const char *name, int ids[MAX_SNAPSHOTS])
{
    struct sd_list_iter iter;
    struct sd_vdi_info info;
    size_t count = 0;

    if (sd_snapshot_list(sd, name, &iter) != SD_RES_SUCCESS)
        return 0;
    while (iter.has_next()) {
        sd_vdi_t *snapshot = iter.next_snapshot();
        if (sd_vdi_get_info(*snapshot, &info, sizeof info) == 0 && count++ < MAX_SNAPSHOTS)
            ids[count - 1] = (int)info.snap_id;
    }
    iter.destory();
    return count;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static bool deleted(const char *name, int result)
{
    if (result == SD_RES_SUCCESS || result == SD_RES_NO_VDI || result == SD_RES_NO_TAG)
        return true;
    fprintf(stderr, "%s is left behind: %s\n", name, sd_strerror(result));
    return false;
}

static bool delete_leftover_snapshots(sd_t sd, const char *name)
{
    int ids[MAX_SNAPSHOTS];
    size_t count = list_snapshots(sd, name, ids);
    bool all = true;

    for (size_t i = 0; i < count && i < MAX_SNAPSHOTS; i++)
        all &= deleted(name, sd_snapshot_delete(sd, name, NULL, ids[i]));
    return all;
}

static bool delete_leftover_vdis(void)
{
    const char *address = getenv("SD_TEST_ADDR");
    bool all = true;
    sd_t sd;

    if (!address || name_count == 0)
        return true;
    if ((strchr(address, '/') ? sd_init_unix(address, &sd) : sd_init(address, &sd)) != 0)
        return false;
    for (size_t i = 0; i < name_count; i++) {
        all &= deleted(names[i], sd_vdi_delete(sd, names[i]));
        all &= delete_leftover_snapshots(sd, names[i]);
    }
    sd_close(&sd);
    return all;
}

static void clean_up(void)
{
    bool clean = delete_leftover_vdis();

    for (size_t i = 0; i < name_count; i++)
        free(names[i]);
    for (size_t i = 0; i < lamb_count; i++) {
        if (lambs[i].pid)
            lamb_kill(&lambs[i]);
        nftw(lambs[i].directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    }
    if (!clean)
        _exit(1);
}

static void clean_up_at_exit(void)
{
    static bool registered;

    if (!registered)
        atexit(clean_up);
    registered = true;
}

/* --- lamb --- */

/* One line of the server's stdout without its newline; false at its end. */
static bool read_line(int fd, char *line, size_t size)
{
    size_t length = 0;
    char c;

    for (;;) {
        ssize_t n = read(fd, &c, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        if (c == '\n')
            break;
        if (length + 1 < size)
            line[length++] = c;
    }
    line[length] = '\0';
    return true;
}

void lamb_restart(struct lamb *lamb)
{
    static const char prefix[] = "lamb: listening on ";
    const char *option = getenv("LAMB_OPTION");
    int output[2];
    char line[256];

    CHECK(lamb->pid == 0);
    CHECK(pipe2(output, O_CLOEXEC) == 0);
    lamb->pid = fork();
    CHECK(lamb->pid >= 0);
    if (lamb->pid == 0) {
#ifdef __linux__
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that is killed leaves no server behind */
#endif
        dup2(output[1], STDOUT_FILENO);
        execl(LAMB, LAMB, "--listen", "127.0.0.1:0", lamb->directory,
              lamb->locks ? "--use-lock" : option, lamb->locks ? option : NULL, (char *)NULL);
        perror(LAMB);
        _exit(127);
    }
    close(output[1]);
    lamb->output = output[0];

    lamb->tcp[0] = lamb->unix_socket[0] = '\0';
    while (!lamb->tcp[0] || !lamb->unix_socket[0]) {
        const char *address = line + sizeof prefix - 1;

        if (!read_line(lamb->output, line, sizeof line))
            fail(__FILE__, __LINE__, "%s ended before it served", LAMB);
        CHECK(strncmp(line, prefix, sizeof prefix - 1) == 0);
        if (strchr(address, '/'))
            snprintf(lamb->unix_socket, sizeof lamb->unix_socket, "%s", strchr(address, '/'));
        else
            snprintf(lamb->tcp, sizeof lamb->tcp, "%s", address);
    }
}

static struct lamb *start(bool locks)
{
    struct lamb *lamb = &lambs[lamb_count];
    const char *parent = getenv("TMPDIR");

    clean_up_at_exit();
    CHECK(lamb_count < MAX_LAMBS);
    /* The path of a Unix socket is short: a long TMPDIR would not leave the room for it. */
    if (!parent || strlen(parent) > 32)
        parent = "/tmp";
    snprintf(lamb->directory, sizeof lamb->directory, "%s/c-test-XXXXXX", parent);
    CHECK(mkdtemp(lamb->directory));
    lamb_count++;
    lamb->locks = locks;
    lamb_restart(lamb);
    return lamb;
}

struct lamb *lamb_start(void)
{
    return start(false);
}

struct lamb *lamb_start_with_locks(void)
{
    return start(true);
}

static int end_lamb(struct lamb *lamb, int signal)
{
    int status;

    kill(lamb->pid, signal);
    while (waitpid(lamb->pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    lamb->pid = 0;
    close(lamb->output);
    return status;
}

void lamb_kill(struct lamb *lamb)
{
    end_lamb(lamb, SIGKILL);
}

void lamb_stop(struct lamb *lamb)
{
    int status = end_lamb(lamb, SIGTERM);

    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* --- The server under test --- */

const char *server_address(void)
{
    static struct lamb *lamb;
    const char *address = getenv("SD_TEST_ADDR");

    if (address)
        return address;
    if (!lamb)
        lamb = lamb_start();
    return lamb->tcp;
}

sd_t connect_to_server(void)
{
    const char *address = server_address();
    sd_t sd;

    OK(strchr(address, '/') ? sd_init_unix(address, &sd) : sd_init(address, &sd));
    return sd;
}

const char *unique_name(const char *test, const char *suffix)
{
    clean_up_at_exit();
    CHECK(name_count < MAX_NAMES);
    CHECK(asprintf(&names[name_count], "%s-%s-%ld", test, suffix, (long)getpid()) > 0);
    return names[name_count++];
}

sd_vdi_t create_vdi(sd_t sd, const char *name, size_t size)
{
    sd_vdi_t vdi;

    OK(sd_vdi_create(sd, name, size, 0, false, &vdi));
    return vdi;
}

void need_object_sizes(sd_t sd)
{
    struct sd_create_opts options = { .object_size = (uint64_t)1 << 20 };
    const char *name = unique_name("support", "object-size");
    int result = sd_vdi_create_ex(sd, name, OBJECT, &options, sizeof options, NULL);

    if (result == SD_RES_NO_SUPPORT)
        skip("the servers have no other object size than 4 MiB");
    OK(result);
    OK(sd_vdi_delete(sd, name));
}

bool names_come_back(sd_t sd)
{
    const char *name = unique_name("support", "again");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT);
    int result;

    OK(sd_snapshot_create(sd, vdi, "tag", NULL));
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_delete(sd, name));
    result = sd_vdi_create(sd, name, OBJECT, 0, false, NULL);
    if (result != SD_RES_VDI_EXIST) {
        OK(result);
        OK(sd_vdi_delete(sd, name));
    }
    OK(sd_snapshot_delete(sd, name, "tag", 0));
    return result == SD_RES_SUCCESS;
}

void need_names_to_come_back(sd_t sd)
{
    if (!names_come_back(sd))
        skip("the cluster recycles ids, and no name is used again beside its snapshots");
}

void need_removals(void)
{
    if (getenv("SD_TEST_KEEPS_OBJECTS"))
        skip("SD_TEST_KEEPS_OBJECTS says that the servers do not remove objects");
}

sd_vdi_t open_second(sd_t sd, const char *name)
{
    sd_vdi_t vdi;
    int result = sd_vdi_open(sd, name, &vdi);

    if (result == SD_RES_VDI_LOCKED)
        skip("the cluster enforces locks");
    OK(result);
    return vdi;
}

sd_vdi_t open_snapshot(sd_t sd, const char *name, const char *tag)
{
    sd_vdi_t snapshot;

    OK(sd_snapshot_open(sd, name, tag, 0, &snapshot));
    return snapshot;
}

struct sd_vdi_info info_of(sd_vdi_t vdi)
{
    struct sd_vdi_info info;

    OK(sd_vdi_get_info(vdi, &info, sizeof info));
    return info;
}

size_t count_snapshots(sd_t sd, const char *name)
{
    int ids[MAX_SNAPSHOTS];

    return list_snapshots(sd, name, ids);
}

void write_to_both(const char *file, int line, sd_t sd, sd_vdi_t vdi, unsigned char *model,
                   size_t offset, size_t size, uint64_t seed)
{
    fill(model + offset, size, seed);
    expect_result(file, line, "sd_vdi_write()",
                  sd_vdi_write(sd, vdi, model + offset, size, (off_t)offset, 0), SD_RES_SUCCESS);
}

/* --- Bits and pieces --- */

int bound_socket(char address[32])
{
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof in) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&in, &length) == 0);
    snprintf(address, 32, "127.0.0.1:%u", ntohs(in.sin_port));
    return fd;
}

uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

void fill(void *buffer, size_t size, uint64_t seed)
{
    unsigned char *bytes = buffer;

    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = next_random(&seed);
        memcpy(bytes + i, &word, size - i < 8 ? size - i : 8);
    }
}

void *copy_of(const void *bytes, size_t size)
{
    void *copy = malloc(size ? size : 1);

    CHECK(copy);
    return memcpy(copy, bytes, size);
}

void *poisoned(size_t size)
{
    void *buffer = malloc(size ? size : 1);

    CHECK(buffer);
    return memset(buffer, 0xa5, size);
}

uint64_t monotonic_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
