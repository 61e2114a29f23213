/* Lists all VDIs, what they are, and their snapshots. */
#include <sheepdog.h>

#include <stdio.h>
#include <stdlib.h>

static void must(int result, const char *what)
{
    if (result != SD_RES_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, sd_last_error());
        exit(1);
    }
}

/* Something to be listed. */
static void fill(sd_t sd)
{
    sd_vdi_t vdi;

    must(sd_vdi_create(sd, "home", 10 << 20, 0, false, NULL), "creating");
    must(sd_vdi_create(sd, "root", 20 << 20, 0, false, &vdi), "creating");
    must(sd_snapshot_create(sd, vdi, "installed", NULL), "taking a snapshot");
    must(sd_snapshot_create(sd, vdi, "upgraded", NULL), "taking a snapshot");
    must(sd_vdi_close(&vdi), "closing");
}

static void list_snapshots(sd_t sd, const char *name)
{
    struct sd_list_iter snapshots;
    struct sd_vdi_info info;

    must(sd_snapshot_list(sd, name, &snapshots), "listing snapshots");
    while (snapshots.has_next()) {
        must(sd_vdi_get_info(*snapshots.next_snapshot(), &info, sizeof info), "a snapshot");
        printf("  %u: %s\n", info.snap_id, info.tag);
    }
    snapshots.destroy();
}

int main(int argc, char **argv)
{
    struct sd_list_iter names;
    struct sd_vdi_info info;
    sd_t sd;
    sd_vdi_t vdi;

    must(sd_init(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    fill(sd);
    must(sd_vdi_list(sd, &names), "listing VDIs");
    while (names.has_next()) {
        const char *name = names.next_string(); /* the iterator's */

        must(sd_vdi_open_ro(sd, name, &vdi), "opening");
        must(sd_vdi_get_info(vdi, &info, sizeof info), "asking");
        printf("%s: %d MiB\n", name, (int)(info.size >> 20));
        must(sd_vdi_close(&vdi), "closing");
        list_snapshots(sd, name);
    }
    names.destroy();
    return sd_close(&sd);
}
