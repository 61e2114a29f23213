/* A server that is none: it hands every request to a function of the test, which may answer
 * whatever it likes. Runs in a thread of its own until it is stopped. */
#ifndef FAKE_H
#define FAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define HEADER_SIZE 48

/* Answers one request on `fd`; false closes the connection. */
typedef bool (fake_answer)(int fd, const unsigned char request[HEADER_SIZE]);

struct fake {
    char address[32];
    fake_answer *answer;
    pthread_t thread;
    int listener, stop[2];
};

void fake_start(struct fake *fake, fake_answer *answer);
void fake_stop(struct fake *fake);

/* A well-formed reply: `length` zeros after a header that echoes the request. */
bool fake_reply(int fd, const unsigned char request[HEADER_SIZE], uint32_t result,
                uint32_t length);
/* All of the bytes, whatever the peer does. */
bool fake_send(int fd, const void *bytes, size_t size);

uint32_t load32(const unsigned char *bytes);
void store32(unsigned char *bytes, uint32_t value);

#endif
