#!/bin/sh
# Compiles the README's C example, word for word, and runs it twice, as who tries it out will; and
# without a server, where it has to say which call failed. What else the README says of versions and
# pages is compared with the sources.
set -eu
cd "$(dirname "$0")/.."

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
sed -n '/^```c$/,/^```$/p' README.md | sed '/^```/d' >"$directory/example.c"
${CC:-cc} -Wall -Wextra -Werror -Iinclude "$directory/example.c" -Lbuild/lib -lsheepdog \
    -Wl,-rpath,"$PWD/build/lib" -o "$directory/example"
output=$(tools/with-lamb.sh sh -ec '"$1" "$2"; "$1" "$2"' example "$directory/example" {})
expected='hello, sheep
hello, sheep'
if [ "$output" != "$expected" ]; then
    echo "test-readme: the example, run twice, printed: $output" >&2
    exit 1
fi
if output=$("$directory/example" 127.0.0.1:1 2>&1) || [ "${output#sd_init: }" = "$output" ]; then
    echo "test-readme: the example, without a server, printed: $output" >&2
    exit 1
fi

version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! grep -q "rustc $version or later" README.md; then
    echo "test-readme: the README does not say that rustc $version is needed" >&2
    exit 1
fi
for page in $(grep -oE '\]\([^):]+\)' README.md | tr -d ']()'); do
    if [ ! -e "$page" ]; then
        echo "test-readme: the README points to $page, which is not there" >&2
        exit 1
    fi
done
echo "test-readme: the example compiles and prints what it should"
