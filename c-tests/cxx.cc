// A C++ program links with the library and calls it.
#include <sheepdog.h>

#include <cstring>
#include <string>

int main()
{
    std::string version = std::to_string(SD_VERSION_MAJOR) + "." +
                          std::to_string(SD_VERSION_MINOR) + "." +
                          std::to_string(SD_VERSION_PATCH);
    sd_t sd = nullptr;

    if (version != sd_version() || std::strlen(sd_strerror(SD_RES_NO_VDI)) == 0)
        return 1;
    return sd_close(&sd) == SD_RES_INVALID_PARMS ? 0 : 1;
}
