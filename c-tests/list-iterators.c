/* Iterators live side by side: interleaved in one thread, and in many threads; each stays as it
 * was when it was made, and the strings of one last until it is destroyed. */
#include "support.h"

#include <pthread.h>
#include <string.h>

#define THREADS 8

static const char *first, *second;

/* Takes names until one of the two comes, which are all that is known to be there. */
static char *next_of_ours(struct sd_list_iter *iter)
{
    while (iter->has_next()) {
        char *name = iter->next_string();
        if (strcmp(name, first) == 0 || strcmp(name, second) == 0)
            return name;
    }
    return NULL;
}

static void *walk(void *opaque)
{
    for (int i = 0; i < 5; i++) {
        struct sd_list_iter iter;

        OK(sd_vdi_list(opaque, &iter));
        CHECK_STR(next_of_ours(&iter), first);
        CHECK_STR(next_of_ours(&iter), second);
        CHECK(!next_of_ours(&iter));
        iter.destory();
    }
    return NULL;
}

int main(void)
{
    sd_t sd = connect_to_server();
    pthread_t threads[THREADS];
    struct sd_list_iter one, other;

    first = vdi_name("a");
    second = vdi_name("b");
    OK(sd_vdi_create(sd, second, OBJECT, 0, false, NULL));
    OK(sd_vdi_create(sd, first, OBJECT, 0, false, NULL));

    OK(sd_vdi_list(sd, &one));
    OK(sd_vdi_list(sd, &other));
    CHECK(one.has_next != other.has_next);
    char *kept = next_of_ours(&one);
    CHECK_STR(kept, first);
    CHECK_STR(next_of_ours(&other), first);
    CHECK_STR(next_of_ours(&other), second);
    CHECK_STR(next_of_ours(&one), second);
    other.destroy();
    CHECK_STR(kept, first);
    CHECK(!next_of_ours(&one));

    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, walk, sd) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);

    /* An iterator holds its list itself: it does not need the connection any more. */
    OK(sd_vdi_list(sd, &other));
    OK(sd_close(&sd));
    CHECK_STR(kept, first);
    CHECK_STR(next_of_ours(&other), first);
    one.destory();
    other.destory();
}
