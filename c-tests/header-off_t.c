/* Must not compile: the program's off_t is not the library's. */
#include <sys/types.h>
#define off_t int
#include <sheepdog.h>
