/* sd_vdi_break_lock() gives back the lock of whoever holds it, and where there is none does
 * nothing. A handle whose lock is gone does not release the next holder's. */
#include "support.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Has another kind of client take the lock, one that shares it with its like (protocol.md 4.10). */
static void lock_shared(const char *address, const char *name)
{
    unsigned char request[48 + 512] = { 2, 0x12, 1 }, answer[48];
    const char *colon = strrchr(address, ':');
    struct sockaddr_in peer = { .sin_family = AF_INET };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0 && colon);
    peer.sin_port = htons((uint16_t)atoi(colon + 1));
    peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    request[13] = 512 >> 8; /* the length of the payload, the name and no tag */
    request[36] = 1;        /* shared */
    strcpy((char *)request + 48, name);
    CHECK(connect(fd, (struct sockaddr *)&peer, sizeof peer) == 0);
    CHECK(write(fd, request, sizeof request) == (ssize_t)sizeof request);
    CHECK(recv(fd, answer, sizeof answer, MSG_WAITALL) == (ssize_t)sizeof answer);
    CHECK_ZERO(answer + 16, 4); /* the result */
    close(fd);
}

static void run(const char *address, const char *name, bool locks)
{
    sd_t holder, other;
    sd_vdi_t vdi, taken = NULL;
    int result;

    OK(sd_init(address, &holder));
    OK(sd_init(address, &other));
    FAILS(SD_RES_NO_VDI, sd_vdi_break_lock(other, name));
    FAILS(SD_RES_INVALID_PARMS, sd_vdi_break_lock(other, ""));
    vdi = create_vdi(holder, name, OBJECT);
    OK(sd_vdi_write(holder, vdi, "x", 1, 0, 0));
    result = sd_vdi_open(other, name, &taken);
    if (locks)
        CHECK(result == SD_RES_VDI_LOCKED && !taken);
    if (result == SD_RES_VDI_LOCKED) {
        OK(sd_vdi_break_lock(other, name));
        OK(sd_vdi_open(other, name, &taken));
        CHECK_CONTENT(other, taken, "x", 1, 0);
        OK(sd_vdi_break_lock(other, name)); /* its own */
        OK(sd_vdi_close(&taken));
        OK(sd_vdi_close(&vdi)); /* which it has lost */

        OK(sd_vdi_open(holder, name, &vdi));
        OK(sd_vdi_break_lock(holder, name));
        OK(sd_vdi_open(other, name, &taken));
        OK(sd_vdi_close(&vdi));
        FAILS(SD_RES_VDI_LOCKED, sd_vdi_open(holder, name, &vdi));
        OK(sd_vdi_close(&taken));

        lock_shared(address, name);
        FAILS(SD_RES_VDI_LOCKED, sd_vdi_open(holder, name, &vdi));
        OK(sd_vdi_break_lock(holder, name));
        OK(sd_vdi_open(holder, name, &vdi));
    } else {
        OK(result);
        OK(sd_vdi_break_lock(other, name));
        OK(sd_vdi_close(&taken));
    }
    OK(sd_vdi_close(&vdi));
    OK(sd_vdi_break_lock(other, name)); /* there is none */
    OK(sd_vdi_open(other, name, &taken));
    OK(sd_close(&other));
    OK(sd_close(&holder));
}

int main(void)
{
    run(server_address(), vdi_name("a"), false);
    run(lamb_start_with_locks()->tcp, vdi_name("b"), true);
}
