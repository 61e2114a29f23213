#!/bin/sh
# Installs into a staging directory, builds the quickstart with what pkg-config says about it, both
# ways of linking, runs it against the lamb installed there, and uninstalls.
set -eu
cd "$(dirname "$0")/.."

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
prefix=/opt/sheepdog
lib=$stage$prefix/lib

make --no-print-directory install DESTDIR="$stage" PREFIX="$prefix"

export PKG_CONFIG_LIBDIR="$lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$stage"
cflags="-Wall -Wextra -Werror $(pkg-config --cflags libsheepdog)"
static=$(pkg-config --static --libs libsheepdog | sed 's/-lsheepdog/-l:libsheepdog.a/')
# shellcheck disable=SC2046,SC2086 # lists of options
${CC:-cc} $cflags examples/quickstart.c $(pkg-config --libs libsheepdog) -o "$stage/dynamic"
# shellcheck disable=SC2086
${CC:-cc} $cflags examples/quickstart.c $static -o "$stage/static"
readelf -d "$stage/dynamic" | grep -q 'NEEDED.*\[libsheepdog\.so\.1\]'
! readelf -d "$stage/static" | grep -q 'NEEDED.*libsheepdog'

export LAMB="$stage$prefix/bin/lamb"
LD_LIBRARY_PATH=$lib tools/with-lamb.sh "$stage/dynamic" {} README.md
tools/with-lamb.sh "$stage/static" {} README.md

make --no-print-directory uninstall DESTDIR="$stage" PREFIX="$prefix"
left=$(find "$stage$prefix" ! -type d)
if [ -n "$left" ]; then
    echo "test-install: uninstall left $left" >&2
    exit 1
fi
echo "test-install: installs, links, runs, uninstalls"
