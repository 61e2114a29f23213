/* Keeps a word about a VDI beside it: attributes belong to the name, and outlast its snapshots. */
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

int main(int argc, char **argv)
{
    char *value;
    size_t size;
    sd_t sd;

    must(sd_init(argc > 1 ? argv[1] : NULL, &sd), "connecting");
    must(sd_vdi_create(sd, "mail", 4 << 20, 0, false, NULL), "creating");
    must(sd_vdi_setattr(sd, "mail", "owner", "shepherd", 8), "setting");

    must(sd_vdi_attr_size(sd, "mail", "owner", &size), "asking for the length");
    value = malloc(size);
    if (!value)
        return 1;
    must(sd_vdi_getattr(sd, "mail", "owner", value, size), "getting");
    printf("owner: %.*s\n", (int)size, value);
    free(value);

    must(sd_vdi_delattr(sd, "mail", "owner"), "deleting");
    if (sd_vdi_attr_size(sd, "mail", "owner", &size) == SD_RES_NO_OBJ)
        printf("no owner any more\n");
    return sd_close(&sd);
}
