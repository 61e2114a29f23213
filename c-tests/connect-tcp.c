/* sd_init reaches a server by address, by host name and by the default; any number of handles
 * live side by side. */
#include "support.h"

#include <stdio.h>
#include <string.h>

int main(void)
{
    struct lamb *lamb = lamb_start();
    char by_name[80];
    sd_t one, other;

    OK(sd_init(lamb->tcp, &one));
    snprintf(by_name, sizeof by_name, "localhost%s", strchr(lamb->tcp, ':'));
    OK(sd_init(by_name, &other));
    CHECK(one && other && one != other);

    OK(sd_close(&one));
    CHECK(!one);
    OK(sd_vdi_create(other, vdi_name("a"), OBJECT, 0, false, NULL));
    OK(sd_close(&other));
    lamb_stop(lamb);
}
