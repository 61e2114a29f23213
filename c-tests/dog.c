#include "dog.h"

#include "support.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void need_dog(void)
{
    const char *path = getenv("SD_TEST_DOG");

    if (!path || !*path || !getenv("SD_TEST_ADDR"))
        skip("SD_TEST_DOG does not name the dog of the server at SD_TEST_ADDR");
}

const char *dog(const char *command, const char *format, ...)
{
    static char output[1 << 20];
    const char *port = strrchr(server_address(), ':');
    char arguments[1024], line[2048];
    size_t length;
    va_list list;
    FILE *pipe;

    va_start(list, format);
    vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    CHECK(port);
    snprintf(line, sizeof line, "'%s' vdi %s -p %s %s 2>&1", getenv("SD_TEST_DOG"), command,
             port + 1, arguments);
    CHECK(pipe = popen(line, "r"));
    length = fread(output, 1, sizeof output - 1, pipe);
    output[length] = '\0';
    if (pclose(pipe) != 0)
        fail(__FILE__, __LINE__, "%s: %s", line, output);
    return output;
}

bool has_line(const char *text, const char *line)
{
    size_t length = strlen(line);

    for (const char *at = text; (at = strstr(at, line)); at++)
        if ((at == text || at[-1] == '\n') && (at[length] == '\n' || at[length] == '\0'))
            return true;
    return false;
}
