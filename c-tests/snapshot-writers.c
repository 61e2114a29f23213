/* Snapshots taken while threads write through the same sd_t: each holds every write that had
 * returned when it was begun and none that was begun after it, and no write is lost. */
#include "support.h"
#include "versions.h"

#define SNAPSHOTS 20

int main(void)
{
    sd_t sd = connect_to_server();
    const char *name = vdi_name("a");
    struct versions versions;
    sd_vdi_t vdi = create_vdi(sd, name, VERSIONS_SIZE);

    versions_start(&versions, sd, vdi);
    for (int i = 0; i < SNAPSHOTS; i++)
        versions_snapshot(&versions, sd, vdi);
    versions_finish(&versions);
    versions_check(&versions, sd, name);
    OK(sd_close(&sd));
}
