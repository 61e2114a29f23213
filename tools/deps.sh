#!/bin/sh
# Installs what the demo and the tests use and this machine lacks, through apt-get. Does nothing
# where nothing is missing.
set -eu

if ! command -v cargo >/dev/null; then
    echo "deps: cargo is missing; https://rustup.rs installs the Rust toolchain" >&2
    exit 1
fi

packages=
for pair in cc:gcc g++:g++ readelf:binutils cmake:cmake pkg-config:pkg-config \
    python3:python3 valgrind:valgrind; do
    command -v "${pair%%:*}" >/dev/null || packages="$packages ${pair#*:}"
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
