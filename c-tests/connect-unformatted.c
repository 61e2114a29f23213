/* A cluster that was never formatted is an error of sd_init. The fake answers as a real server
 * does before `dog cluster format` (protocol.md 4.1): some requests succeed, with zeros. */
#include "fake.h"
#include "support.h"

enum { READ_VDIS = 0x15, GET_CLUSTER_DEFAULT = 0x18, GET_NODE_LIST = 0x82, CLUSTER_INFO = 0xbe };

static bool unformatted(int fd, const unsigned char *request)
{
    switch (request[1]) {
    case GET_CLUSTER_DEFAULT:
        return fake_reply(fd, request, SD_RES_SUCCESS, 0);
    case READ_VDIS:
    case GET_NODE_LIST:
    case CLUSTER_INFO:
        return fake_reply(fd, request, SD_RES_SUCCESS, load32(request + 12));
    default:
        return fake_reply(fd, request, SD_RES_WAIT_FOR_FORMAT, 0);
    }
}

int main(void)
{
    struct fake fake;
    sd_t sd = &fake;

    fake_start(&fake, unformatted);
    FAILS(SD_RES_WAIT_FOR_FORMAT, sd_init(fake.address, &sd));
    CHECK(sd == &fake);
    fake_stop(&fake);
}
