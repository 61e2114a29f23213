/* At least 256 iterators live at once; when the pool is empty the next one gives SD_RES_NO_MEM,
 * and what was destroyed can be had again. */
#include "support.h"

#include <string.h>

#define MANY 5000

static bool has(struct sd_list_iter *iter, const char *name)
{
    while (iter->has_next())
        if (strcmp(iter->next_string(), name) == 0)
            return true;
    return false;
}

int main(void)
{
    static struct sd_list_iter iters[MANY];
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    struct sd_list_iter extra = { .opaqe = &sd };
    size_t count = 0;
    int result;

    OK(sd_vdi_create(sd, name, OBJECT, 0, false, NULL));
    while (count < MANY && (result = sd_vdi_list(sd, &iters[count])) == SD_RES_SUCCESS)
        count++;
    CHECK(count >= 256 && count < MANY);
    FAILS(SD_RES_NO_MEM, result);
    FAILS(SD_RES_NO_MEM, sd_vdi_list(sd, &extra));
    CHECK(extra.opaqe == &sd);

    iters[7].destory();
    OK(sd_vdi_list(sd, &iters[7]));
    FAILS(SD_RES_NO_MEM, sd_vdi_list(sd, &extra));
    for (size_t i = 0; i < count; i++) {
        CHECK(has(&iters[i], name));
        iters[i].destory();
    }
    for (size_t i = 0; i < count; i++)
        OK(sd_vdi_list(sd, &iters[i]));
    for (size_t i = 0; i < count; i++)
        iters[i].destory();
    OK(sd_close(&sd));
}
