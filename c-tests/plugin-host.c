/* usage: plugin-host ADDRESS PLUGIN
 *
 * A program that has neither libsheepdog nor libuv loads a plugin that has both, for itself alone:
 * the library finds the plugin's libuv. Then the plugin goes and comes again. */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    static const char *const names[] = { "plugin-a", "plugin-b" };

    if (argc != 3)
        return 2;
    for (int round = 0; round < 2; round++) {
        void *plugin = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
        int (*run)(const char *, const char *);
        int result;

        if (!plugin) {
            fprintf(stderr, "plugin-host: %s\n", dlerror());
            return 1;
        }
        if (dlsym(RTLD_DEFAULT, "uv_poll_init")) {
            fprintf(stderr, "plugin-host: libuv is there for everybody\n");
            return 1;
        }
        run = (int (*)(const char *, const char *))dlsym(plugin, "plugin_run");
        if (!run || (result = run(argv[1], names[round])) != 0) {
            fprintf(stderr, "plugin-host: the plugin gave %#x\n", run ? (unsigned)result : 0);
            return 1;
        }
        dlclose(plugin);
    }
    return 0;
}
