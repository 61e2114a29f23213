/* A peer that accepts the connection but does not speak the protocol is an error of sd_init. */
#include "fake.h"
#include "support.h"

#include <string.h>

static bool speaks_http(int fd, const unsigned char *request)
{
    static const char text[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                               "Connection: close\r\n\r\nThis is no place for sheep.\r\n";
    (void)request;
    fake_send(fd, text, sizeof text - 1);
    return false;
}

static bool answers_another_request(int fd, const unsigned char *request)
{
    unsigned char other[HEADER_SIZE];

    memcpy(other, request, HEADER_SIZE);
    store32(other + 8, load32(request + 8) + 1);
    return fake_reply(fd, other, SD_RES_SUCCESS, 0);
}

static bool answers_another_opcode(int fd, const unsigned char *request)
{
    unsigned char other[HEADER_SIZE];

    memcpy(other, request, HEADER_SIZE);
    other[1] ^= 0x40;
    return fake_reply(fd, other, SD_RES_SUCCESS, 0);
}

/* More than any request of a handshake offers a buffer for: nothing may be allocated for it. */
static bool announces_4_gib(int fd, const unsigned char *request)
{
    unsigned char reply[HEADER_SIZE] = { 0, request[1] };

    memcpy(reply + 8, request + 8, 4);
    store32(reply + 12, UINT32_MAX);
    return fake_send(fd, reply, sizeof reply);
}

static bool hangs_up(int fd, const unsigned char *request)
{
    (void)fd, (void)request;
    return false;
}

static int init_at(fake_answer *answer)
{
    struct fake fake;
    sd_t sd = &fake;

    fake_start(&fake, answer);
    int result = sd_init(fake.address, &sd);
    CHECK(sd == &fake);
    fake_stop(&fake);
    return result;
}

int main(void)
{
    FAILS(SD_RES_BAD_REPLY, init_at(speaks_http));
    FAILS(SD_RES_BAD_REPLY, init_at(answers_another_request));
    FAILS(SD_RES_BAD_REPLY, init_at(answers_another_opcode));
    FAILS(SD_RES_BAD_REPLY, init_at(announces_4_gib));
    FAILS(SD_RES_NOT_CONNECTED, init_at(hangs_up));
}
