#!/bin/sh
# usage: tsan.sh DIRECTORY
#
# Compiles the library for ThreadSanitizer and links it to DIRECTORY/libsheepdog.so; prints the path
# of the sanitizer's runtime, with which programs are to be linked. A stable toolchain has that as
# well, but not the switch, which RUSTC_BOOTSTRAP opens, nor a standard library that is compiled for
# it: tests/tsan/std.c stands in for what matters.
set -eu

directory=$1
cc=${CC:-cc}
target=$(rustc -vV | sed -n 's/^host: //p')
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
    CARGO_PROFILE_RELEASE_LTO=off CARGO_TARGET_DIR="$directory/cargo" \
    ${CARGO:-cargo} build --release --package libsheepdog --target "$target" >&2
library=$directory/cargo/$target/release/libsheepdog.a

# The functions of the standard library, as rustc mangles them.
defines=
wraps=
undefined=$(nm "$library" 2>/dev/null | sed -n 's/^ *U //p' | sort -u)
for pair in MUTEX_LOCK=mutex5futex.*14lock_contended RWLOCK_READ=rwlock5futex.*14read_contended \
    RWLOCK_WRITE=rwlock5futex.*15write_contended CONDVAR_WAIT=condvar5futex.*4wait \
    CONDVAR_WAIT_TIMEOUT=condvar5futex.*12wait_timeout; do
    symbol=$(echo "$undefined" | grep "3std3sys4sync.*${pair#*=}\$") || {
        echo "tsan: this rustc's standard library has no ${pair#*=}" >&2
        exit 1
    }
    defines="$defines -D${pair%%=*}=$symbol"
    wraps="$wraps -Wl,--wrap=$symbol"
done
# shellcheck disable=SC2086 # lists of options
$cc -O1 -fPIC -Wall -Wextra -Werror $defines -c tests/tsan/std.c -o "$directory/std.o"
# shellcheck disable=SC2086
$cc -shared -o "$directory/libsheepdog.so" $wraps "$directory/std.o" \
    -Wl,--version-script=src/libsheepdog.map,-soname,libsheepdog.so.1,-z,nodelete \
    -Wl,--whole-archive "$library" -Wl,--no-whole-archive -lgcc_s -lm
ln -sf libsheepdog.so "$directory/libsheepdog.so.1"

runtime=$(find "$(rustc --print sysroot)/lib/rustlib/$target/lib" -name 'librustc-*_rt.tsan.a')
[ -f "$runtime" ] || { echo "tsan: rustc comes without the runtime" >&2; exit 1; }
echo "$runtime"
