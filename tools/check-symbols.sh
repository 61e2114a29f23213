#!/bin/sh
# usage: check-symbols.sh [--update] LIBRARY
#
# Compares what the shared object offers and needs with what it promises: the symbols and versions
# of abi/symbols (which --update rewrites), the functions that the headers declare, the
# soname, the libraries it needs, and how it is linked.
set -eu
LC_ALL=C
export LC_ALL

root=$(dirname "$0")/..
update=
if [ "$1" = --update ]; then
    update=yes
    shift
fi
library=$1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
failed=0

complain() {
    echo "check-symbols: $*" >&2
    failed=1
}

nm -D --defined-only --with-symbol-versions "$library" |
    awk '$2 != "A" { print $3 }' | sort >"$directory/symbols"
[ -z "$update" ] || cp "$directory/symbols" "$root/abi/symbols"
diff -u "$root/abi/symbols" "$directory/symbols" ||
    complain "the symbols are not those of abi/symbols (wanted: check-symbols.sh --update)"
! grep -v '@@SHEEPDOG_1\.0$' "$directory/symbols" || complain "symbols without a version"

sed 's/@.*//' "$directory/symbols" >"$directory/exported"
{
    echo '#include <sheepdog.h>' | ${CC:-cc} -E -P -I "$root/include" -x c - |
        grep -oE '\<sd_[a-z0-9_]+ *\('
    # Those that need an event library's header, as they stand.
    sed -n 's/^int \(sd_[a-z]*_attach(\).*/\1/p' "$root"/include/sheepdog_*.h
} | tr -d ' (' | sort >"$directory/declared"
diff -u "$directory/declared" "$directory/exported" ||
    complain "the headers declare other functions than the library exports"

readelf -dW "$library" >"$directory/dynamic"
readelf -lW "$library" >"$directory/segments"
grep -q 'SONAME.*\[libsheepdog\.so\.1\]' "$directory/dynamic" || complain "wrong soname"
! sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' "$directory/dynamic" |
    grep -vE '^(libc|libm|libgcc_s)\.so\.[0-9]+$' || complain "needs other libraries"
! nm -D --undefined-only --with-symbol-versions "$library" |
    awk '$1 != "w" && $2 !~ /@/ && $2 != "__tls_get_addr" { print $2 }' | grep . ||
    complain "symbols that none of them defines"
# The event libraries are the program's: weak references, and no copy of our own.
nm -D --undefined-only "$library" | awk '$1 == "w" { print $2 }' >"$directory/weak"
for function in ev_io_start event_assign uv_poll_init; do
    grep -qx "$function" "$directory/weak" || complain "no weak reference to $function"
done
! nm --defined-only "$library" | awk '{ print $3 }' | grep -E '^(ev|event|evutil|uv)_' ||
    complain "has a copy of an event library"
grep -q 'FLAGS_1.*NOW.*NODELETE' "$directory/dynamic" || complain "not -z now, -z nodelete"
grep -q GNU_RELRO "$directory/segments" || complain "not -z relro"
! grep -q TEXTREL "$directory/dynamic" || complain "has text relocations"
grep -q 'GNU_STACK.* RW ' "$directory/segments" || complain "asks for an executable stack"

[ "$failed" -ne 0 ] || echo "check-symbols: $(wc -l <"$directory/symbols") symbols, all as promised"
exit "$failed"
