#!/bin/sh
# Compiles the README's C example, word for word, and runs it.
set -eu
cd "$(dirname "$0")/.."

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
sed -n '/^```c$/,/^```$/p' README.md | sed '/^```/d' >"$directory/example.c"
${CC:-cc} -Wall -Wextra -Werror -Iinclude "$directory/example.c" -Lbuild/lib -lsheepdog \
    -Wl,-rpath,"$PWD/build/lib" -o "$directory/example"
output=$(tools/with-lamb.sh "$directory/example" {})
if [ "$output" != "hello, sheep" ]; then
    echo "test-readme: the example printed: $output" >&2
    exit 1
fi
echo "test-readme: the example compiles and prints what it should"
