#!/bin/sh
# usage: abi.sh [--update] LIBRARY
#
# Compares what a compiled program knows of the library with what abi/ says (docs/abi.md): the types
# and functions of the headers, abi/sheepdog.abi, and the values of their macros, abi/constants.
# --update rewrites both. What LIBRARY exports is abi/symbols, and for check-symbols.sh.
#
# abidw sees no function of an object that rustc made. So it sees one in C that the headers say
# everything about: each function that LIBRARY exports, as they declare it, with an empty body.
set -eu
LC_ALL=C
export LC_ALL
cd "$(dirname "$0")/.."

update=
if [ "$1" = --update ]; then
    update=yes
    shift
fi
library=$1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
fail() {
    echo "abi-check: $*" >&2
    exit 1
}
skip() {
    [ -z "${CI:-}" ] || fail "$1, and CI is set"
    echo "abi-check: $1, skipped"
    exit 0
}

# The macros that a program is compiled with, as numbers, but for the version.
echo '#include <sheepdog.h>' | ${CC:-cc} -E -dM -Iinclude -x c - |
    sed -n 's/^#define \(SD_[A-Z0-9_]*\) .*/\1/p' |
    grep -v -e '^SD_VERSION_' -e '^SD_EXTENSION$' | sort >"$directory/names"
{
    printf '#include <sheepdog.h>\n#include <stdio.h>\nint main(void)\n{\n'
    sed 's/.*/    printf("& %lld\\n", (long long)(&));/' "$directory/names"
    echo '}'
} >"$directory/constants.c"
${CC:-cc} -Iinclude "$directory/constants.c" -o "$directory/constants"
"$directory/constants" >"$directory/constants.txt"
failed=
[ -z "$update" ] || cp "$directory/constants.txt" abi/constants
diff -u abi/constants "$directory/constants.txt" >&2 || failed=yes

command -v abidw >/dev/null || skip "abidw is not installed (package abigail-tools)"
[ "$(uname -m)" = x86_64 ] || skip "abi/sheepdog.abi is that of x86-64"

# The event libraries' types are pointers to whatever those libraries say.
{
    echo '#include <sheepdog.h>'
    echo 'struct ev_loop; struct event_base; typedef struct uv_loop_s uv_loop_t;'
    echo '#define EV_P_ struct ev_loop *loop,'
    sed -n '/^int sd_[a-z]*_attach(/p' include/sheepdog_*.h
} >"$directory/headers.c"
# The declarations of functions, each in a line; then with a body.
${CC:-cc} -E -P -Iinclude "$directory/headers.c" | tr '\n' ' ' | sed 's/;/;\n/g' |
    grep -E '^ *[a-z][a-z_ ]* \**sd_[a-z0-9_]+ *\([^;]*\);$' | grep -v '^ *typedef ' \
    >"$directory/functions"
{
    cat "$directory/headers.c"
    sed 's/;$/ { __builtin_trap(); }/' "$directory/functions"
} >"$directory/stub.c"
${CC:-cc} -g -O0 -fPIC -shared -ffile-prefix-map="$directory/=" -Iinclude "$directory/stub.c" \
    -o "$directory/libsheepdog.so"
nm -D --defined-only "$directory/libsheepdog.so" | awk '/ sd_/ { print $3 }' >"$directory/stub"
nm -D --defined-only "$library" | awk '/ sd_/ { sub("@.*", "", $3); print $3 }' \
    >"$directory/exported"
diff -u "$directory/exported" "$directory/stub" >&2 ||
    fail "the functions of the headers were not understood as those that the library exports"

abidw --no-corpus-path --no-comp-dir-path --no-show-locs --no-architecture \
    --out-file "$directory/new.abi" "$directory/libsheepdog.so"
[ -z "$update" ] || cp "$directory/new.abi" abi/sheepdog.abi
# Bits: 1 an error, 2 a wrong usage, 4 a change, 8 one that breaks programs for certain.
status=0
abidiff abi/sheepdog.abi "$directory/new.abi" >"$directory/report" || status=$?
if [ "$status" -ne 0 ]; then
    cat "$directory/report" >&2
    failed=yes
fi
[ -z "$failed" ] || fail "the headers are not those of abi/; docs/abi.md says what may change," \
    "and make abi-update writes it down"
echo "abi-check: $(wc -l <"$directory/functions") functions, $(wc -l <abi/constants) constants," \
    "all as abi/ has them"
