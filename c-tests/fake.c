#include "fake.h"

#include "support.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_PEERS 16
#define FLAG_WRITE 0x01 /* protocol.md 2.3: the request carries a payload */

uint32_t load32(const unsigned char *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

void store32(unsigned char *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (unsigned char)(value >> 8 * i);
}

bool fake_send(int fd, const void *bytes, size_t size)
{
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(fd, (const char *)bytes + sent, size - sent, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        sent += (size_t)n;
    }
    return true;
}

bool fake_reply(int fd, const unsigned char request[HEADER_SIZE], uint32_t result,
                uint32_t length)
{
    size_t size = HEADER_SIZE + (size_t)length;
    unsigned char *reply = calloc(1, size);

    CHECK(reply);
    reply[1] = request[1];                /* opcode, protocol.md 1.3 */
    memcpy(reply + 8, request + 8, 4);    /* id */
    store32(reply + 12, length);
    store32(reply + 16, result);
    bool sent = fake_send(fd, reply, size);
    free(reply);
    return sent;
}

/* Takes one whole request off the connection and has it answered; false when it is over. */
static bool serve(int fd, fake_answer *answer)
{
    unsigned char request[HEADER_SIZE], payload[4096];

    if (recv(fd, request, HEADER_SIZE, MSG_WAITALL) != HEADER_SIZE)
        return false;
    uint32_t rest = request[2] & FLAG_WRITE ? load32(request + 12) : 0;
    while (rest > 0) {
        ssize_t n = recv(fd, payload, rest < sizeof payload ? rest : sizeof payload, 0);
        if (n <= 0)
            return false;
        rest -= (uint32_t)n;
    }
    return answer(fd, request);
}

static void *run(void *opaque)
{
    struct fake *fake = opaque;
    struct pollfd fds[2 + MAX_PEERS] = { { .fd = fake->stop[0], .events = POLLIN },
                                         { .fd = fake->listener, .events = POLLIN } };
    nfds_t count = 2;

    while (poll(fds, count, -1) > 0 && !fds[0].revents) {
        if (fds[1].revents) {
            int fd = accept(fake->listener, NULL, NULL);
            CHECK(fd >= 0 && count < 2 + MAX_PEERS);
            fds[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
        }
        for (nfds_t i = 2; i < count; i++) {
            if (fds[i].revents && !serve(fds[i].fd, fake->answer)) {
                close(fds[i].fd);
                fds[i--] = fds[--count];
            }
        }
    }
    while (count > 2)
        close(fds[--count].fd);
    return NULL;
}

void fake_start(struct fake *fake, fake_answer *answer)
{
    fake->answer = answer;
    fake->listener = bound_socket(fake->address);
    CHECK(listen(fake->listener, MAX_PEERS) == 0);
    CHECK(pipe(fake->stop) == 0);
    CHECK(pthread_create(&fake->thread, NULL, run, fake) == 0);
}

void fake_stop(struct fake *fake)
{
    close(fake->stop[1]);
    pthread_join(fake->thread, NULL);
    close(fake->stop[0]);
    close(fake->listener);
}
