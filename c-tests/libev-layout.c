/* The structures of ev.h are those of src/loops/libev.rs, whose own test has the same numbers. */
#include <sheepdog_libev.h>

#include <stddef.h>

#define IS(what, value) _Static_assert((what) == (value), #what)

#if UINTPTR_MAX == UINT64_MAX
IS(sizeof(ev_io), 48);
IS(sizeof(ev_cleanup), 32);
IS(offsetof(ev_io, active), 0);
IS(offsetof(ev_io, pending), 4);
IS(offsetof(ev_io, priority), 8);
IS(offsetof(ev_io, data), 16);
IS(offsetof(ev_io, cb), 24);
IS(offsetof(ev_io, next), 32);
IS(offsetof(ev_io, fd), 40);
IS(offsetof(ev_io, events), 44);
IS(offsetof(ev_cleanup, active), 0);
IS(offsetof(ev_cleanup, pending), 4);
IS(offsetof(ev_cleanup, priority), 8);
IS(offsetof(ev_cleanup, data), 16);
IS(offsetof(ev_cleanup, cb), 24);
#endif
IS(EV_READ, 1);
IS(EV__IOFDSET, 0x80);
IS(EV_VERSION_MAJOR, 4);

int main(void)
{
    return ev_version_major() == EV_VERSION_MAJOR ? 0 : 1;
}
