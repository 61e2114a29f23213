/* sheepdog.h compiles before anything else is included, and twice. Compiled only, as C99, C11 and
 * C++17 (CMakeLists.txt), so nothing here may need more than C99 and C++ share. */
#include <sheepdog.h>
#include <sheepdog.h>

int main(void)
{
    sd_t sd;
    struct sd_list_iter iter;
    struct sd_vdi_info info;

    if (sd_init("127.0.0.1", &sd) != SD_RES_SUCCESS)
        return 1;
    if (sd_vdi_list(sd, &iter) == SD_RES_SUCCESS) {
        while (iter.has_next())
            iter.next_string();
        iter.destory();
    }
    info.size = 0;
    return sd_close(&sd) + (int)info.size;
}
