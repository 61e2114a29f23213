#!/bin/sh
# usage: cargo-build.sh DIRECTORY [crook]
#
# Builds the library, without the API for Rust programs, and lamb with cargo, or the program crook,
# and copies what that makes to DIRECTORY. Where cargo puts what it makes depends on
# CARGO_TARGET_DIR, on CARGO_BUILD_TARGET and on configuration files of its own, so it is asked.
# What has not changed is not copied, so that nothing is linked anew.
#
# What is made does not tell where: the directories of the sources and of the crates have other
# names in it, the same whether the crates are cargo's or those of `make dist`.
set -eu

directory=$1
# For another machine lamb is linked by the compiler that makes the shared object.
if [ -n "${CARGO_BUILD_TARGET:-}" ] && [ "${CC:-cc}" != cc ]; then
    linker=CARGO_TARGET_$(echo "$CARGO_BUILD_TARGET" | tr a-z.- A-Z__)_LINKER
    eval "export $linker=\"\${$linker:-\$CC}\""
fi

sources=/usr/src/libsheepdog
home=${CARGO_HOME:-$HOME/.cargo}
# So that the directory is there, which has a name of its own for each registry.
[ -d vendor ] || [ -d "$home/registry/src" ] || ${CARGO:-cargo} fetch
# The id is what debuggers find a program's lines by.
separator=$(printf '\037')
flags=-Clink-arg=-Wl,--build-id
list="'$flags',"
for pair in "$PWD=$sources" ${CARGO_TARGET_DIR:+"$CARGO_TARGET_DIR=$sources/target"} \
    "$home"/registry/src/*/; do
    case $pair in
    */\*/) continue ;;
    */) pair=${pair%/}=$sources/vendor ;;
    esac
    flags="$flags$separator--remap-path-prefix=$pair"
    list="$list'''--remap-path-prefix=$pair''',"
done
# Beside the flags that somebody gave, wherever that was; of these places cargo looks at one alone.
# Those of a target in a configuration file stand, and leave no room for others.
if [ -n "${CARGO_ENCODED_RUSTFLAGS:-}" ]; then
    export CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS$separator$flags"
elif [ -n "${RUSTFLAGS:-}" ]; then
    # shellcheck disable=SC2086 # in words, as cargo takes it
    CARGO_ENCODED_RUSTFLAGS=$(printf "%s$separator" $RUSTFLAGS)$flags
    export CARGO_ENCODED_RUSTFLAGS
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
${CARGO:-cargo} --config "build.rustflags=[$list]" build $options \
    --message-format json-render-diagnostics >"$messages"

for name in $names; do
    made=$(sed -n "s|^{\"reason\":\"compiler-artifact\".*\"\([^\"]*/$name\)\".*|\1|p" "$messages")
    if [ ! -f "$made" ]; then
        echo "cargo-build: cargo made not one $name but: ${made:-none}" >&2
        echo "cargo-build: for one of several targets say make CARGO_BUILD_TARGET=..." >&2
        exit 1
    fi
    cmp -s "$made" "$directory/$name" || cp -f "$made" "$directory/$name"
done
