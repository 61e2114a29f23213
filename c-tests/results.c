/* Every result has a text of its own and an errno; a code nobody knows has both, too. */
#include "support.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

int main(void)
{
    static const int results[] = {
        SD_RES_SUCCESS,       SD_RES_UNKNOWN,         SD_RES_NO_OBJ,
        SD_RES_EIO,           SD_RES_VDI_EXIST,       SD_RES_INVALID_PARMS,
        SD_RES_SYSTEM_ERROR,  SD_RES_VDI_LOCKED,      SD_RES_NO_VDI,
        SD_RES_NO_BASE_VDI,   SD_RES_VDI_READ,        SD_RES_VDI_WRITE,
        SD_RES_BASE_VDI_READ, SD_RES_BASE_VDI_WRITE,  SD_RES_NO_TAG,
        SD_RES_STARTUP,       SD_RES_VDI_NOT_LOCKED,  SD_RES_SHUTDOWN,
        SD_RES_NO_MEM,        SD_RES_FULL_VDI,        SD_RES_VER_MISMATCH,
        SD_RES_NO_SPACE,      SD_RES_WAIT_FOR_FORMAT, SD_RES_WAIT_FOR_JOIN,
        SD_RES_JOIN_FAILED,   SD_RES_HALT,            SD_RES_READONLY,
        SD_RES_TIMEDOUT,      SD_RES_CANCELED,        SD_RES_BAD_REPLY,
        SD_RES_NOT_CONNECTED,
    };
    static const struct { int result, error; } errnos[] = {
        { SD_RES_SUCCESS, 0 },           { SD_RES_NO_VDI, ENOENT },
        { SD_RES_VDI_EXIST, EEXIST },    { SD_RES_INVALID_PARMS, EINVAL },
        { SD_RES_EIO, EIO },             { SD_RES_NO_SPACE, ENOSPC },
        { SD_RES_NO_MEM, ENOMEM },       { SD_RES_VDI_LOCKED, EBUSY },
        { SD_RES_READONLY, EROFS },      { SD_RES_TIMEDOUT, ETIMEDOUT },
        { SD_RES_CANCELED, ECANCELED },  { SD_RES_SYSTEM_ERROR, EIO },
    };
    static const int unknown[] = { 0x7f, 0xff, 0x1ff, INT_MAX, -1, INT_MIN };
    const char *nothing = sd_strerror(unknown[0]);

    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        CHECK(*nothing);
        CHECK_STR(sd_strerror(unknown[i]), nothing);
        CHECK(sd_result_to_errno(unknown[i]) == EIO);
    }
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        CHECK(strcmp(sd_strerror(results[i]), nothing) != 0);
    for (size_t i = 0; i < sizeof errnos / sizeof *errnos; i++)
        CHECK(sd_result_to_errno(errnos[i].result) == errnos[i].error);

    for (int result = 0; result < 0x200; result++) {
        const char *text = sd_strerror(result);

        CHECK(text && *text);
        CHECK(text == sd_strerror(result)); /* a constant: nobody has to free it */
        CHECK((sd_result_to_errno(result) > 0) == (result != SD_RES_SUCCESS));
        for (int other = 0; other < result && strcmp(text, nothing) != 0; other++)
            CHECK(strcmp(text, sd_strerror(other)) != 0);
    }
}
