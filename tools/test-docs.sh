#!/bin/sh
# usage: test-docs.sh CROOK PLUGIN [CARGO]
#
# Runs what the book shows and what is no program in C, which `make test-c` runs: the shell recipes of
# docs/recipes, each line of which has to succeed, and the examples in Rust. Each has a lamb of its own.
set -eu
cd "$(dirname "$0")/.."

crook=$1
plugin=$2
cargo=${3:-cargo}
directory=$(mktemp -d)
trap '[ ! -s "$directory/nbdkit.pid" ] || kill "$(cat "$directory/nbdkit.pid")" 2>/dev/null || :
    rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM
export LAMB="$PWD/build/bin/lamb"
with_lamb=$PWD/tools/with-lamb.sh
recipes=$PWD/docs/recipes

# As they are where they are installed.
mkdir "$directory/bin"
ln -s "$crook" "$directory/bin/crook"
cat >"$directory/bin/nbdkit" <<EOT
#!/bin/sh
for argument; do
    shift
    [ "\$argument" != sheepdog ] || argument='$plugin'
    set -- "\$@" "\$argument"
done
exec '$(command -v nbdkit)' "\$@"
EOT
chmod 755 "$directory/bin/nbdkit"

dd if=/dev/urandom of="$directory/image.raw" bs=1M count=9 2>/dev/null
truncate -s 32M "$directory/image.raw"
qemu-img convert -f raw -O qcow2 "$directory/image.raw" "$directory/image.qcow2"
for recipe in "$recipes"/*.sh; do
    (cd "$directory" && LD_LIBRARY_PATH="${recipes%/docs/recipes}/build/lib" PATH="$directory/bin:$PATH" \
        "$with_lamb" sh -c 'export SHEEPDOG_ADDR="$1"; exec sh -eu "$2"' recipe {} "$recipe" \
        >"$directory/output" 2>&1) || {
        cat "$directory/output" >&2
        echo "test-docs: $recipe fails" >&2
        exit 1
    }
    echo "test-docs: ${recipe##*/}"
done

# What they print, with what they greet.
run_example() {
    $cargo build --quiet --example "$1"
    output=$("$with_lamb" $cargo run --quiet --example "$1" -- {})
    [ "$output" = "$2" ] || {
        echo "test-docs: examples/$1.rs printed: $output" >&2
        exit 1
    }
    echo "test-docs: $1.rs"
}
run_example blocking 'monday sunday'
run_example tokio 'hello, sheep'
