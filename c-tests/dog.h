/* dog, the tool that comes with the real server, beside the library on one cluster. */
#ifndef DOG_H
#define DOG_H

#include <stdbool.h>

/* Skips the test unless SD_TEST_DOG, the path of dog, and SD_TEST_ADDR are set. */
void need_dog(void);

/* Runs `dog vdi COMMAND -p PORT ARGUMENTS`; it must succeed. What it printed lives until the next
 * call. */
const char *dog(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Whether a line of the text is this one. */
bool has_line(const char *text, const char *line);

#endif
