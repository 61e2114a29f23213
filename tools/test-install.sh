#!/bin/sh
# Installs, under a umask that lets nobody else read, below directories with spaces in their names;
# looks at the modes; builds the quickstart with what pkg-config and CMake say about it in every way
# of linking, and runs it against the lamb installed there; links the static library beside another
# one written in Rust, where rustc is there to make that; uninstalls.
set -eu
cd "$(dirname "$0")/.."

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM
fail() {
    echo "test-install: $*" >&2
    exit 1
}

stage="$directory/the stage"
prefix="/opt/sheep & dog"
lib=$stage$prefix/lib
(umask 077 && make --no-print-directory install DESTDIR="$stage" PREFIX="$prefix")
wrong=$(find "$stage/opt" -type d ! -perm 755 -o \
    -type f -perm 755 ! -path '*/bin/*' ! -name '*.so.*' -o -type f ! -perm 755 ! -perm 644)
[ -z "$wrong" ] || fail "wrong modes: $(ls -ld "$wrong")"

# pkg-config 1.8 doubles a sysroot with a space, so here it has a name without; what it prints is
# for a shell, with a backslash before each space of the prefix.
ln -s "$stage" "$directory/sysroot"
export PKG_CONFIG_LIBDIR="$lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$directory/sysroot"
# compile OPTION...: a program, with what pkg-config says; --static-library: with libsheepdog.a
compile() {
    libraries=$(pkg-config --libs libsheepdog)
    static=$(pkg-config --static --libs libsheepdog)
    case $1 in
    --static-library) shift && libraries=$(echo "$static" | sed s/-lsheepdog/-l:libsheepdog.a/) ;;
    -static) libraries=$static ;;
    esac
    eval "set -- -Wall -Wextra -Werror $(pkg-config --cflags libsheepdog) \"\$@\" $libraries"
    ${CC:-cc} "$@"
}
compile examples/quickstart.c -o "$directory/dynamic"
compile --static-library examples/quickstart.c -o "$directory/static"
readelf -d "$directory/dynamic" | grep -q 'NEEDED.*\[libsheepdog\.so\.1\]' ||
    fail "the program is not linked with the shared object"
! readelf -d "$directory/static" | grep -q 'NEEDED.*libsheepdog' ||
    fail "the program is not linked with the static library"

export LAMB="$stage$prefix/bin/lamb"
LD_LIBRARY_PATH=$lib tools/with-lamb.sh "$directory/dynamic" {} README.md
tools/with-lamb.sh "$directory/static" {} README.md

# Without any shared object, where the C library is there as a static one, too. The linker warns
# that glibc finds names and loads libraries with the help of its shared objects even then.
if echo 'int main(void) { return 0; }' | ${CC:-cc} -static -x c - -o "$directory/c" 2>/dev/null; then
    compile -static examples/quickstart.c -o "$directory/entirely" 2>"$directory/warnings" || {
        cat "$directory/warnings" >&2
        fail "the program cannot be linked with -static"
    }
    ! readelf -d "$directory/entirely" | grep -q NEEDED || fail "-static has needs"
    tools/with-lamb.sh "$directory/entirely" {} README.md
else
    echo "test-install: the C library is there as a shared object only, -static is skipped"
fi

# CMake, which finds everything where it was moved to.
cmake -S tests/install -B "$directory/cmake" -DCMAKE_PREFIX_PATH="$stage$prefix" \
    -DEXAMPLES="$PWD/examples" >"$directory/output" 2>&1 &&
    cmake --build "$directory/cmake" >>"$directory/output" 2>&1 || {
    cat "$directory/output" >&2
    fail "CMake does not build the example"
}
readelf -d "$directory/cmake/dynamic" | grep -q 'NEEDED.*\[libsheepdog\.so\.1\]' ||
    fail "CMake did not link with the shared object"
! readelf -d "$directory/cmake/static" | grep -q 'NEEDED.*libsheepdog' ||
    fail "CMake did not link with the static library"
tools/with-lamb.sh "$directory/cmake/dynamic" {} README.md
tools/with-lamb.sh "$directory/cmake/static" {} README.md

# The static library shows sd_* alone, so all of another one in Rust finds room beside it.
seen=$(readelf -sW "$lib/libsheepdog.a" |
    awk '$5 != "LOCAL" && $7 ~ /^[0-9]/ && $8 !~ /^sd_/ { print $8 }')
[ -z "$seen" ] || fail "libsheepdog.a also shows $seen"
if command -v rustc >/dev/null; then
    rustc --edition 2024 --crate-type staticlib tests/install/other.rs -o "$directory/libother.a"
    compile --static-library tests/install/beside.c -o "$directory/beside" \
        -Wl,--whole-archive "$directory/libother.a" -Wl,--no-whole-archive
    "$directory/beside" || fail "two libraries in Rust do not work in one program"
else
    echo "test-install: rustc is not installed, another library in Rust is skipped"
fi

# A reader finds the page of a function that shares it with others. man splits the path at colons only.
for man in mman man; do
    ! command -v "$man" >/dev/null ||
        "$man" -M "$stage$prefix/share/man" sd_vdi_awrite | grep -q "without waiting" ||
        fail "$man does not find the page of a function"
done

make --no-print-directory uninstall DESTDIR="$stage" PREFIX="$prefix"
left=$(find "$stage" ! -type d)
[ -z "$left" ] || fail "uninstall left $left"
echo "test-install: installs, links, runs, uninstalls"
