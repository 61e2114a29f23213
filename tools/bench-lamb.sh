#!/bin/sh
# usage: bench-lamb.sh [SHEEP]
#
# Measures a fresh lamb, and beside it a fresh cluster of one node of the real server, whose
# program SHEEP is and whose dog is found from there.
set -eu

tools=$(dirname "$0")
bench=$("${CARGO:-cargo}" metadata --no-deps --format-version 1 |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/examples/bench
if [ $# -eq 0 ]; then
    exec "$tools/with-lamb.sh" "$bench" {}
fi

sheep=$1
dog=$(dirname "$sheep")/dog
[ -x "$dog" ] || dog=$(dirname "$sheep")/../bin/dog
port=${SHEEP_PORT:-17000}
directory=$(mktemp -d)
"$sheep" -f -n -b 127.0.0.1 -y 127.0.0.1 -p "$port" -c "local:$directory/local" "$directory/store" \
    >"$directory/output" 2>&1 &
pid=$!
trap 'kill "$pid" || :; wait "$pid" || :; rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM

tries=50
until "$dog" cluster format -c 1 -p "$port" >"$directory/format" 2>&1 && ! grep -q rror "$directory/format"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { cat "$directory/output" "$directory/format" >&2; exit 1; }
    sleep 0.2
done
echo "lamb, and how much that is of what $sheep does:"
"$tools/with-lamb.sh" "$bench" {} "127.0.0.1:$port"
