#!/bin/sh
# usage: test-dist.sh TARBALL SOURCES
#
# Makes TARBALL again, from a clone in another directory, with another umask, time zone and
# language: it has to be the same. SOURCES are those of TARBALL, unpacked and built elsewhere,
# without a network and with the crates of vendor/. The library and lamb made here, with cargo's
# own crates, have to be the same as those made there, and know neither directory.
set -eu
cd "$(dirname "$0")/.."

tarball=$1
sources=$2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM
fail() {
    echo "test-dist: $*" >&2
    exit 1
}

git clone -q . "$directory/clone"
# What is not committed is in the tarball, too.
changed=$(git stash create)
if [ -n "$changed" ]; then
    git diff --binary HEAD "$changed" | git -C "$directory/clone" apply --allow-empty --index -
fi
(umask 077 && cd "$directory/clone" &&
    TZ=Pacific/Kiritimati LANG=tr_TR.UTF-8 tools/dist.sh "$directory/again/$(basename "$tarball")")
cmp "$tarball" "$directory/again/$(basename "$tarball")" || fail "the tarball is another one"
listing=$(tar --numeric-owner -tvf "$tarball")
[ "$(echo "$listing" | awk '{ print $2 }' | sort -u)" = 0/0 ] || fail "owners in the tarball"
[ "$(echo "$listing" | awk '{ print $4, $5 }' | sort -u | wc -l)" -eq 1 ] ||
    fail "several times in the tarball"

[ -d "$sources/vendor" ] && grep -q 'offline = true' "$sources/.cargo/config.toml" ||
    fail "$sources has no crates of its own"
shared=$(basename "$(readlink -f build/lib/libsheepdog.so)")
for file in "lib/$shared" lib/libsheepdog.a bin/lamb; do
    cmp "build/$file" "$sources/build/$file" || fail "$file is another one"
    for place in "$PWD" "${CARGO_HOME:-$HOME/.cargo}"; do
        ! grep -qaF "$place" "build/$file" || fail "$file knows of $place"
    done
done
echo "test-dist: the tarball, the library and lamb are the same, made elsewhere"
