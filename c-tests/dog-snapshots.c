/* dog takes snapshot after snapshot of a VDI that threads of ours write to: no write that returned
 * is lost, none is in a snapshot that was taken before it. An argument says how many snapshots. */
#include "dog.h"
#include "support.h"
#include "versions.h"

#include <stdio.h>
#include <stdlib.h>

#define AT_ONCE 25 /* snapshots that exist: each keeps some objects */

int main(int argc, char **argv)
{
    int wanted = argc > 1 ? atoi(argv[1]) : 2 * AT_ONCE;
    struct sd_create_opts options = { .object_size = MiB };
    const char *name = vdi_name("a");
    struct versions versions;
    sd_t writer, other;
    sd_vdi_t vdi;

    need_dog();
    writer = connect_to_server();
    other = connect_to_server();
    need_object_sizes(writer);
    OK(sd_vdi_create_ex(writer, name, VERSIONS_SIZE, &options, sizeof options, &vdi));

    versions_start(&versions, writer, vdi);
    for (int i = 0; i < wanted; i++) {
        dog("snapshot", "-s %s %s", versions_before_snapshot(&versions), name);
        versions_after_snapshot(&versions);
        if (i % AT_ONCE == AT_ONCE - 1) {
            versions_check_snapshots(&versions, other, name);
            for (int j = 0; j < AT_ONCE; j++)
                dog("delete", "-s tag-%d %s", j, name);
            printf("%d snapshots\n", i + 1);
        }
    }
    versions_finish(&versions);
    versions_check(&versions, other, name);
    OK(sd_close(&writer));
    OK(sd_close(&other));
}
