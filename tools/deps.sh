#!/bin/sh
# usage: deps.sh [demo | deb]
#
# Installs what the demo and the tests use and this machine lacks, through apt-get; with `demo` only
# what that one uses, with `deb` what makes and tests the Debian packages. Does nothing where nothing
# is missing. The event libraries are for the tests and the examples alone.
set -eu
PATH="$PATH:/usr/sbin" # where tgtd is

if ! command -v cargo >/dev/null; then
    echo "deps: cargo is missing; https://rustup.rs installs the Rust toolchain" >&2
    exit 1
fi

packages=
commands="cc:gcc python3:python3"
libraries=
case ${1:-} in
demo) ;;
deb)
    # What debian/control says in Build-Depends is here, too.
    commands="$commands make:make dh:debhelper dpkg-buildpackage:dpkg-dev git:git lintian:lintian
        debootstrap:debootstrap pkg-config:pkg-config"
    libraries="nbdkit:nbdkit-plugin-dev"
    ;;
*)
    commands="$commands g++:g++ readelf:binutils cmake:cmake pkg-config:pkg-config mandoc:mandoc
        valgrind:valgrind tgtd:tgt iscsi-test-cu:libiscsi-bin nbdkit:nbdkit nbdcopy:libnbd-bin
        fio:fio qemu-io:qemu-utils mkfs.ext4:e2fsprogs abidw:abigail-tools"
    libraries="libevent_core:libevent-dev libuv:libuv1-dev glib-2.0:libglib2.0-dev
        nbdkit:nbdkit-plugin-dev"
    echo '#include <ev.h>' | cc -E -x c - >/dev/null 2>&1 || packages="$packages libev-dev"
    # A test starts the program; that the shell has a command of this name says nothing.
    env kill -l >/dev/null 2>&1 || packages="$packages procps"
    # Where bindgen looks for it, with which tests compare declarations with the libraries' headers.
    # libclang-cpp is another library.
    [ -n "${LIBCLANG_PATH:-}" ] || ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so' ||
        find /usr/lib/llvm*/lib -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' 2>/dev/null |
        grep -q . || packages="$packages libclang-dev"
    ;;
esac
# A compiler can come without the C library's headers: gcc's package only recommends them.
echo '#include <stdio.h>' | cc -E -x c - >/dev/null 2>&1 || packages="$packages libc6-dev"
for pair in $commands; do
    command -v "${pair%%:*}" >/dev/null || packages="$packages ${pair#*:}"
done
for pair in $libraries; do
    pkg-config --exists "${pair%%:*}" 2>/dev/null || packages="$packages ${pair#*:}"
done
if [ -z "$packages" ]; then
    echo "deps: nothing is missing"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "deps: please install:$packages" >&2
    exit 1
fi

as_root=
[ "$(id -u)" -eq 0 ] || as_root="sudo"
echo "deps: installing with apt-get:$packages"
$as_root apt-get update -q
# shellcheck disable=SC2086 # a list of names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $packages
# The package tgt also starts a server, on all addresses. The tests need none but their own.
case $packages in
*" tgt"*) [ ! -d /run/systemd/system ] || $as_root systemctl disable --now tgt.service ;;
esac
