#!/bin/sh
# usage: test-deb.sh DIRECTORY
#
# The packages in DIRECTORY: lintian finds no error, and in a bare Debian system, which debootstrap
# makes, they install with what they depend on and no more, do what they are for, and go again.
# There the examples that come with them are built and run: with pkg-config, with CMake, and
# statically.
#
# Takes root, and the mirror that apt-get has here. Without root the test is skipped, but with CI
# in the environment it fails.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

packages=$1
fail() {
    echo "test-deb: $*" >&2
    exit 1
}
skip() {
    [ -z "${CI:-}" ] || fail "$1, and CI is set"
    echo "test-deb: $1, skipped"
    exit 0
}

lintian --allow-root --fail-on error --tag-display-limit 0 "$packages"/*.changes ||
    fail "lintian finds errors"
unit=$(mktemp -d)
trap 'rm -rf "$unit"' EXIT
if command -v systemd-analyze >/dev/null; then
    dpkg-deb -x "$(echo "$packages"/sheepdog-lamb_*.deb)" "$unit"
    systemd-analyze verify --man=no --recursive-errors=no --root="$unit" lamb.service lamb.socket ||
        fail "systemd does not understand the units"
    # What is open to attacks, in tenths of a point; 10 points are everything.
    systemd-analyze security --offline=true --root="$unit" --threshold=12 lamb.service \
        >"$unit/report" || {
        cat "$unit/report" >&2
        fail "the service is not hardened as it was"
    }
fi

[ "$(id -u)" -eq 0 ] || skip "debootstrap and chroot take root"
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
# shellcheck disable=SC2016 # apt's own variable
mirror=$(apt-get indextargets --format '$(SITE)' "Codename: $suite" | head -n 1)
[ -n "$suite" ] && [ -n "$mirror" ] || fail "no mirror of Debian that apt-get knows"

root=$(mktemp -d)
# Nothing runs there but what a command below waits for; what debootstrap mounts for a while is not
# to be looked into, should it be there still.
trap 'rm -rf --one-file-system "$unit" "$root"' EXIT
trap 'exit 130' HUP INT TERM
debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$unit/debootstrap" 2>&1 || {
    tail -n 20 "$unit/debootstrap" "$root/debootstrap/debootstrap.log" >&2
    fail "debootstrap does not make a system"
}
inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive \
        LAMB=/usr/bin/lamb chroot "$root" "$@"
}
apt() {
    inside apt-get -qy --no-install-recommends "$@" >"$unit/apt" 2>&1 || {
        tail -n 20 "$unit/apt" >&2
        fail "apt-get $* fails"
    }
}
# The same lists and proxies as here.
cp /etc/apt/apt.conf.d/*proxy* "$root/etc/apt/apt.conf.d/" 2>/dev/null || :
mkdir "$root/packages" "$root/try"
cp "$packages"/*.deb "$root/packages"
rm -f "$root"/packages/*-dbgsym_*
cp tools/with-lamb.sh "$root/try"
cp tests/install/CMakeLists.txt "$root/try"
apt update

# Those that run programs, with what they say that they need, and nothing else.
for package in libsheepdog1 sheepdog-lamb sheepdog-crook nbdkit-plugin-sheepdog; do
    apt install "/packages/$(basename "$(echo "$packages/$package"_*.deb)")"
done
[ -z "$(find "$root/etc/systemd/system" -name 'lamb.*' 2>/dev/null)" ] || fail "lamb is enabled"
[ -e "$root/lib/systemd/system/lamb.socket" ] || fail "lamb has no socket unit"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
for program in lamb crook; do
    [ "$(inside $program --version)" = "$program $version" ] ||
        fail "$program --version says something else"
done
inside nbdkit sheepdog --dump-plugin | grep -qx 'name=sheepdog' || fail "nbdkit has no plugin"
# beside COMMAND...: in there, beside a lamb, whose address {} becomes.
beside() {
    inside /try/with-lamb.sh "$@"
}
# shellcheck disable=SC2016 # for the shell in there
beside sh -ec 'crook --addr "$1" create shepherd 64M
    crook --addr "$1" ls | grep -q shepherd' sh {} || fail "crook does not work"
echo "test-deb: installed in a bare $suite, lamb and crook work"

# What is on them for programmers: the examples as their first lines say.
apt install "/packages/$(basename "$(echo "$packages"/libsheepdog-dev_*.deb)")" gcc libc6-dev make \
    cmake pkg-config libev-dev libevent-dev libuv1-dev libglib2.0-dev libnbd-bin
# shellcheck disable=SC2016 # for the shells in there
size=$(beside sh -ec 'nbdkit -U - sheepdog addr="$1" vdi=disk create=64M \
    --run "nbdinfo --size \"\$uri\""' sh {}) ||
    fail "the plugin does not work"
[ "$size" = $((64 << 20)) ] || fail "the plugin serves another size: $size"
examples=/usr/share/doc/libsheepdog-dev/examples
for source in "$root$examples"/*.c; do
    name=$(basename "$source" .c)
    compile=$(sed -n 's/^ \* *\(cc .*\)/\1/p' "$source")
    run=$(sed -n "s|^ \* *\./$name 127.0.0.1:7000||p" "$source")
    [ -n "$compile" ] || fail "$name.c does not say how it is compiled"
    inside sh -ec "cd $examples && ${compile% -o *} -Wall -Werror -o /try/$name" ||
        fail "$name.c does not compile"
    # shellcheck disable=SC2086 # none or one
    beside "/try/$name" {} ${run:+"$examples/quickstart.c"} >"$unit/said" ||
        fail "$name does not run: $(cat "$unit/said")"
done
inside cmake -S /try -B /try/build -DEXAMPLES="$examples" >"$unit/cmake" 2>&1 &&
    inside cmake --build /try/build >>"$unit/cmake" 2>&1 || {
    cat "$unit/cmake" >&2
    fail "CMake does not build the example"
}
inside sh -ec "cc -static $examples/quickstart.c \
    \$(pkg-config --static --cflags --libs libsheepdog) -o /try/entirely" 2>"$unit/warnings" || {
    cat "$unit/warnings" >&2
    fail "the example cannot be linked with -static"
}
needs() {
    readelf -d "$root/try/$1" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p'
}
needs build/dynamic | grep -qx 'libsheepdog\.so\.1' || fail "CMake did not take the shared object"
! needs build/static | grep -q libsheepdog || fail "CMake did not take the static library"
[ -z "$(needs entirely)" ] || fail "-static has needs"
for program in build/dynamic build/static entirely; do
    beside "/try/$program" {} "$examples/quickstart.c" >"$unit/said" ||
        fail "$program does not run: $(cat "$unit/said")"
done

apt purge libsheepdog1 libsheepdog-dev sheepdog-lamb sheepdog-crook nbdkit-plugin-sheepdog
left=$(find "$root/usr" "$root/lib/" "$root/etc" "$root/var/lib" \
    \( -name '*sheepdog*' -o -name 'lamb*' -o -name 'crook*' \) \
    ! -path '*/dpkg/*' ! -path '*/apt/*')
[ -z "$left" ] || fail "what is purged leaves $left"
echo "test-deb: examples with pkg-config, CMake and -static build and run; all goes again"
