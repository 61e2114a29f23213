/* Connects through whichever of several gateways answers, with limits of its own, and says why
 * what failed did. */
#include <sheepdog.h>

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct sd_init_opts opts = {
        .connect_timeout_ms = 2000, /* for one gateway */
        .timeout_ms = 10000,        /* for a call, over all gateways */
    };
    char addr[512];
    sd_t sd;
    sd_vdi_t vdi;
    const char *why;
    int result;

    /* Nobody listens on the first one. They are tried in order, and again when one fails. */
    snprintf(addr, sizeof addr, "127.0.0.1:1,%s", argc > 1 ? argv[1] : "127.0.0.1:7000");
    result = sd_init_ex(addr, &opts, sizeof opts, &sd);
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "%s\n", sd_last_error());
        return 1;
    }
    result = sd_vdi_open(sd, "nothing", &vdi);
    why = sd_last_error(); /* until this thread's next call */
    printf("result: %s\n", sd_strerror(result));
    printf("errno: %s\n", strerror(sd_result_to_errno(result)));
    fprintf(stderr, "in words, for people: %s\n", why);
    return sd_close(&sd);
}
