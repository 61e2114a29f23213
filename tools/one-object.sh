#!/bin/sh
# usage: one-object.sh INPUT OUTPUT
#
# Makes of rustc's static library one with a single object, of which only sd_* can be seen, as in the
# shared object. So it can be linked beside another static library written in Rust, which brings a
# standard library of its own: the two would define the same symbols twice. What no sd_* function
# needs is left out, and so is what debuggers and rustc alone can use.
#
# CC, OBJCOPY, AR and READELF in the environment name other tools than this machine's own.
set -eu
LC_ALL=C
export LC_ALL

input=$1
output=$2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM
symbols() {
    "${READELF:-readelf}" --wide --symbols "$1" 2>/dev/null
}

# From these the linker finds what is needed. Not with nm, which may take the bitcode that rustc adds
# for the object.
symbols "$input" | awk '$5 == "GLOBAL" && $7 != "UND" && $8 ~ /^sd_/ { print "-Wl,-u," $8 }' |
    sort -u >"$directory/wanted"
if [ ! -s "$directory/wanted" ]; then
    echo "one-object: $input defines no sd_* function" >&2
    exit 1
fi
# Without groups: a linker keeps one of those that have the same name, and there would be another
# Rust library's references to symbols of ours, which it cannot see.
if ! "${CC:-cc}" -r -nostdlib -o "$directory/all.o" "@$directory/wanted" "$input" \
    -Wl,--gc-sections,--strip-debug,--force-group-allocation; then
    echo "one-object: for another machine than this one say make CARGO_BUILD_TARGET=... CC=..." \
        "OBJCOPY=... AR=..." >&2
    exit 1
fi

# What left out sections alone refer to still has a name in the object, by now a local one, which
# objcopy would make a reference again, to functions that the C library may not have.
symbols "$directory/all.o" | awk '$5 == "LOCAL" && $7 == "UND" && $8 != "" { print $8 }' \
    >"$directory/unused"
# The weak references of src/loops remain: objcopy leaves alone what is undefined.
"${OBJCOPY:-objcopy}" --wildcard --keep-global-symbol='sd_*' --strip-symbols="$directory/unused" \
    --remove-section=.llvmbc --remove-section=.llvmcmd \
    "$directory/all.o" "$directory/libsheepdog.o"
rm -f "$output"
"${AR:-ar}" rcsD "$output" "$directory/libsheepdog.o"
