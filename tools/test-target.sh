#!/bin/sh
# Builds a copy of the sources where a configuration file of cargo's names this machine's own triple as
# the target, and another directory for what is made: both are elsewhere then than usual. What comes of
# it has the symbols that it should have, and runs. Not optimized, for that is what takes its time.
set -eu
cd "$(dirname "$0")/.."

root=$PWD
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM
target=$(rustc -vV | sed -n 's/^host: //p')
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET LAMB
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=none

tar --exclude=./target --exclude=./build --exclude=./.git -cf - . | tar -C "$directory" -xf -
cd "$directory"
mkdir -p .cargo
printf '[build]\ntarget = "%s"\ntarget-dir = "elsewhere"\n' "$target" >>.cargo/config.toml
make --no-print-directory build check-symbols
[ -e "elsewhere/$target/release/lamb" ] || {
    echo "test-target: cargo did not read its configuration" >&2
    exit 1
}
# The same, said in the environment: nothing is made anew.
made=$(ls -l --time-style=full-iso build/lib build/bin)
CARGO_BUILD_TARGET=$target make --no-print-directory build
[ "$made" = "$(ls -l --time-style=full-iso build/lib build/bin)" ] || {
    echo "test-target: what has not changed was made anew" >&2
    exit 1
}
${CC:-cc} -Iinclude examples/quickstart.c -Lbuild/lib -lsheepdog -Wl,-rpath,"$PWD/build/lib" \
    -o quickstart
tools/with-lamb.sh ./quickstart {} "$root/README.md"
echo "test-target: builds for a target that cargo is told of"
