/* What threads learn of each other inside Rust's standard library, told to ThreadSanitizer: the
 * library that comes with rustc is not compiled for it, so what it does where a lock is contended
 * goes unseen, and what the lock guards looks like a race. Where nobody is in the way, the code is
 * inlined into ours, and seen.
 *
 * tools/tsan.sh links this with --wrap for each of the functions, whose symbols it passes. */
#include <stdbool.h>
#include <stdint.h>

void __tsan_acquire(void *);
void __tsan_release(void *);

/* Both locks begin with the word that the inlined code uses. */
#define CONTENDED(symbol)                                                                         \
    void __real_##symbol(void *lock);                                                             \
    void __wrap_##symbol(void *lock);                                                             \
    void __wrap_##symbol(void *lock)                                                              \
    {                                                                                             \
        __real_##symbol(lock);                                                                    \
        __tsan_acquire(lock);                                                                     \
    }
/* One step more, so that the symbols are put in. */
#define EACH(symbol) CONTENDED(symbol)
EACH(MUTEX_LOCK)
EACH(RWLOCK_READ)
EACH(RWLOCK_WRITE)

/* A condition variable lets go of the lock and takes it again. */
#define WAIT(symbol)                                                                              \
    void __real_##symbol(void *condvar, void *lock);                                              \
    void __wrap_##symbol(void *condvar, void *lock);                                              \
    void __wrap_##symbol(void *condvar, void *lock)                                               \
    {                                                                                             \
        __tsan_release(lock);                                                                     \
        __real_##symbol(condvar, lock);                                                           \
        __tsan_acquire(lock);                                                                     \
    }
#define WAIT_TIMEOUT(symbol)                                                                      \
    bool __real_##symbol(void *condvar, void *lock, uint64_t seconds, uint32_t nanoseconds);      \
    bool __wrap_##symbol(void *condvar, void *lock, uint64_t seconds, uint32_t nanoseconds);      \
    bool __wrap_##symbol(void *condvar, void *lock, uint64_t seconds, uint32_t nanoseconds)       \
    {                                                                                             \
        __tsan_release(lock);                                                                     \
        bool notified = __real_##symbol(condvar, lock, seconds, nanoseconds);                     \
        __tsan_acquire(lock);                                                                     \
        return notified;                                                                          \
    }
#define EACH_WAIT(symbol) WAIT(symbol)
#define EACH_WAIT_TIMEOUT(symbol) WAIT_TIMEOUT(symbol)
EACH_WAIT(CONDVAR_WAIT)
EACH_WAIT_TIMEOUT(CONDVAR_WAIT_TIMEOUT)
