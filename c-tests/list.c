/* The list names every VDI once, in order; has_next may be asked any number of times; past the
 * end there is NULL. Other programs' VDIs may be in it. */
#include "support.h"

#include <string.h>

#define COUNT 5

int main(void)
{
    sd_t sd = connect_to_server();
    const char *names[COUNT] = { vdi_name("b"), vdi_name("a"), vdi_name("d"), vdi_name("c"),
                                 vdi_name("\xc3\xa4") };
    int seen[COUNT] = { 0 };
    char previous[256] = "";
    struct sd_list_iter iter;

    for (int i = 0; i < COUNT; i++)
        OK(sd_vdi_create(sd, names[i], OBJECT, 0, false, NULL));
    OK(sd_vdi_delete(sd, names[2]));

    OK(sd_vdi_list(sd, &iter));
    while (iter.has_next()) {
        CHECK(iter.has_next());
        char *name = iter.next_string();
        CHECK(name && strcmp(previous, name) < 0);
        strcpy(previous, name);
        for (int i = 0; i < COUNT; i++)
            seen[i] += strcmp(name, names[i]) == 0;
    }
    CHECK(!iter.has_next());
    CHECK(!iter.next_string());
    CHECK(!iter.next_string());
    iter.destory();
    for (int i = 0; i < COUNT; i++)
        CHECK(seen[i] == (i == 2 ? 0 : 1));
    OK(sd_close(&sd));
}
