#!/bin/sh
# usage: bench-lamb.sh [SHEEP]
#
# Measures a fresh lamb, and beside it a fresh cluster of one node of the real server, whose
# program SHEEP is and whose dog is found from there: on a disk and in memory, synced and not. DISK
# and MEMORY in the environment name the directories for that, SETTINGS some of the settings.
set -eu

tools=$(dirname "$0")
bench=$("${CARGO:-cargo}" metadata --no-deps --format-version 1 |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/examples/bench-lamb
lamb=${LAMB:-$tools/../build/bin/lamb}
sheep=${1:-}
if [ -n "$sheep" ]; then
    dog=$(dirname "$sheep")/dog
    [ -x "$dog" ] || dog=$(dirname "$sheep")/../bin/dog
fi
port=${SHEEP_PORT:-17000}

directory=
pids=
# Both are asked to end, and then waited for.
end() {
    for pid in $pids; do kill "$pid" 2>/dev/null || :; done
    for pid in $pids; do wait "$pid" || :; done
    pids=
    [ -z "$directory" ] || rm -rf "$directory"
    directory=
}
trap end EXIT
trap 'exit 130' HUP INT TERM

start_lamb() {
    mkfifo "$directory/output"
    "$lamb" --listen 127.0.0.1:0 "$directory/lamb" $1 >"$directory/output" 2>/dev/null &
    pids="$pids $!"
    server=
    exec 3<"$directory/output"
    while [ -z "$server" ] && read -r line <&3; do
        case $line in
        */*) ;;
        "lamb: listening on "*) server=${line#"lamb: listening on "},$! ;;
        esac
    done
    [ -n "$server" ] || { echo "bench-lamb: $lamb ended before it served" >&2; exit 1; }
}

start_sheep() {
    "$sheep" -f $1 -b 127.0.0.1 -y 127.0.0.1 -p "$port" -c "local:$directory/local" \
        "$directory/sheep" >"$directory/sheep.output" 2>&1 &
    pids="$pids $!"
    server=127.0.0.1:$port,$!
    tries=50
    until "$dog" cluster format -c 1 -p "$port" >"$directory/format" 2>&1 &&
        ! grep -q rror "$directory/format"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { cat "$directory/sheep.output" "$directory/format" >&2; exit 1; }
        sleep 0.2
    done
}

[ -z "$sheep" ] || echo "lamb, and how much that is of what $sheep does:"
for setting in ${SETTINGS:-memory-unsynced disk-unsynced disk-synced}; do
    case $setting in
    memory-*) directory=$(mktemp -d -p "${MEMORY:-/dev/shm}") ;;
    *) directory=$(mktemp -d -p "${DISK:-/var/tmp}") ;;
    esac
    case $setting in
    *-unsynced) lamb_option=--no-sync sheep_option=-n ;;
    *) lamb_option= sheep_option= ;;
    esac
    start_lamb "$lamb_option"
    servers=$server
    if [ -n "$sheep" ]; then
        start_sheep "$sheep_option"
        servers="$servers $server"
    fi
    echo "$setting:"
    # shellcheck disable=SC2086 # one argument each
    "$bench" $servers
    end
done
