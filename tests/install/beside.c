/* A program with two static libraries in Rust, each with a standard library of its own. */
#include <sheepdog.h>

int other_length(int number);

int main(void)
{
    sd_t sd = NULL;

    if (other_length(12345) != 5 || other_length(-1) != -1)
        return 1;
    return sd_init("127.0.0.1:1", &sd) != SD_RES_NOT_CONNECTED;
}
