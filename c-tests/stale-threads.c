/* One client takes snapshots in a loop while another one writes from several threads: each snapshot
 * holds every write that had returned when it was begun and none that was begun after it, and at
 * the end no write is lost. */
#include "support.h"
#include "versions.h"

#define SNAPSHOTS 20

int main(void)
{
    sd_t writer = connect_to_server(), other = connect_to_server();
    const char *name = vdi_name("a");
    struct versions versions;
    sd_vdi_t vdi = create_vdi(writer, name, VERSIONS_SIZE), seen = open_second(other, name);

    versions_start(&versions, writer, vdi);
    for (int i = 0; i < SNAPSHOTS; i++)
        versions_snapshot(&versions, other, seen);
    versions_finish(&versions);
    versions_check(&versions, other, name);
    OK(sd_close(&other));
    OK(sd_close(&writer));
}
