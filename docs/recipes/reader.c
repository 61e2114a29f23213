/* Reads a VDI that another client writes: takes no lock, and looks again when it wants to know what
 * is new. */
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
    const char *addr = argc > 1 ? argv[1] : NULL;
    char text[5] = "";
    sd_t writer, reader;
    sd_vdi_t written, seen;

    must(sd_init(addr, &writer), "connecting");
    must(sd_vdi_create(writer, "log", 4 << 20, 0, false, &written), "creating");

    must(sd_init(addr, &reader), "connecting as another client");
    must(sd_vdi_open_ro(reader, "log", &seen), "opening to read");
    must(sd_vdi_read(reader, seen, text, 4, 0), "reading");
    printf("before: \"%s\"\n", text);

    must(sd_vdi_write(writer, written, "line", 4, 0, 0), "writing");
    must(sd_vdi_refresh(reader, seen), "looking again");
    must(sd_vdi_read(reader, seen, text, 4, 0), "reading");
    printf("after: \"%s\"\n", text);
    if (sd_vdi_write(reader, seen, "mine", 4, 0, 0) == SD_RES_READONLY)
        printf("a reader cannot write\n");
    must(sd_close(&reader), "closing");
    return sd_close(&writer);
}
