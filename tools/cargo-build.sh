#!/bin/sh
# usage: cargo-build.sh DIRECTORY [crook]
#
# Builds the library, without the API for Rust programs, and lamb with cargo, or the
# program crook, and copies what that makes to DIRECTORY. Where cargo puts what it
# makes depends on CARGO_TARGET_DIR, on CARGO_BUILD_TARGET and on configuration files of its own, so it is
# asked. What has not changed is not copied, so that nothing is linked anew.
set -eu

directory=$1
# For another machine lamb is linked by the compiler that makes the shared object.
if [ -n "${CARGO_BUILD_TARGET:-}" ] && [ "${CC:-cc}" != cc ]; then
    linker=CARGO_TARGET_$(echo "$CARGO_BUILD_TARGET" | tr a-z.- A-Z__)_LINKER
    eval "export $linker=\"\${$linker:-\$CC}\""
fi
messages=$(mktemp)
trap 'rm -f "$messages"' EXIT
trap 'exit 130' HUP INT TERM
mkdir -p "$directory"
names="libsheepdog.a lamb"
options="--release --no-default-features"
if [ "${2:-}" = crook ]; then
    names=crook
    options="--profile tool --package crook"
fi
# shellcheck disable=SC2086 # a command, perhaps with options
${CARGO:-cargo} build $options --message-format json-render-diagnostics >"$messages"

for name in $names; do
    made=$(sed -n "s|^{\"reason\":\"compiler-artifact\".*\"\([^\"]*/$name\)\".*|\1|p" "$messages")
    if [ ! -f "$made" ]; then
        echo "cargo-build: cargo made not one $name but: ${made:-none}" >&2
        echo "cargo-build: for one of several targets say make CARGO_BUILD_TARGET=..." >&2
        exit 1
    fi
    cmp -s "$made" "$directory/$name" || cp -f "$made" "$directory/$name"
done
