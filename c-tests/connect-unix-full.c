/* A Unix socket whose queue of connections is full is waited for, as one of TCP is. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST 8192

static void *go_on(void *opaque)
{
    struct lamb *lamb = opaque;

    usleep(300000); /* long enough for a client that gives up at once to be found out */
    kill(lamb->pid, SIGCONT);
    return NULL;
}

int main(void)
{
    struct lamb *lamb = lamb_start();
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    static int sockets[MOST];
    int count = 0, failed = 0;
    pthread_t thread;
    sd_t sd;

    snprintf(address.sun_path, sizeof address.sun_path, "%s", lamb->unix_socket);
    kill(lamb->pid, SIGSTOP);
    while (!failed && count < MOST) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
            break;
        sockets[count++] = fd;
        failed = connect(fd, (struct sockaddr *)&address, sizeof address) ? errno : 0;
    }
    if (failed != EAGAIN)
        skip("the queue of a Unix socket does not fill up");
    CHECK(pthread_create(&thread, NULL, go_on, lamb) == 0);
    OK(sd_init_unix(lamb->unix_socket, &sd));
    CHECK(pthread_join(thread, NULL) == 0);
    OK(sd_close(&sd));
    while (count > 0)
        close(sockets[--count]);
}
