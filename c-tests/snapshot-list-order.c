/* Many snapshots are all listed, in order, while a second iterator is halfway through them; the
 * strings and handles of one live on when the other is destroyed. */
#include "support.h"

#include <stdio.h>

#define COUNT 40

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    sd_vdi_t vdi = create_vdi(sd, name, OBJECT), *kept;
    struct sd_list_iter one, other;
    char content, tag[16];
    int count = 0;

    for (int i = 0; i < COUNT; i++) {
        char value = (char)(i + 1);

        OK(sd_vdi_write(sd, vdi, &value, 1, 0, 0));
        snprintf(tag, sizeof tag, "t%d", COUNT - i);
        OK(sd_snapshot_create(sd, vdi, tag, NULL));
    }
    OK(sd_snapshot_list(sd, name, &one));
    OK(sd_snapshot_list(sd, name, &other));
    kept = one.next_snapshot();
    while (other.has_next()) {
        sd_vdi_t *snapshot = other.next_snapshot();

        OK(sd_vdi_read(sd, *snapshot, &content, 1, 0));
        CHECK(content == ++count);
    }
    CHECK(count == COUNT);
    other.destroy();
    OK(sd_vdi_read(sd, *kept, &content, 1, 0));
    CHECK(content == 1);
    OK(sd_vdi_read(sd, *one.next_snapshot(), &content, 1, 0));
    CHECK(content == 2);
    one.destory();
    OK(sd_close(&sd));
}
