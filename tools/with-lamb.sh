#!/bin/sh
# usage: with-lamb.sh COMMAND [ARGUMENT]...
#
# Runs the command beside a lamb that is freshly formatted, on a free port and in a directory that
# is gone afterwards; an argument {} becomes its HOST:PORT. Ends with the command's exit status, or
# with 1 if the lamb did not end cleanly. LAMB in the environment names another lamb,
# LAMB_OPTION gives it an option more.
set -eu

lamb=${LAMB:-$(dirname "$0")/../build/bin/lamb}
directory=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || { kill -KILL "$pid"; wait "$pid" || :; }; rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM

mkdir "$directory/store"
mkfifo "$directory/output"
"$lamb" --listen 127.0.0.1:0 "$directory/store" ${LAMB_OPTION:+"$LAMB_OPTION"} >"$directory/output" &
pid=$!
exec 3<"$directory/output"

# It says where it listens once it serves; its Unix socket, a line with a slash, is of no use here.
address=
while [ -z "$address" ] && read -r line <&3; do
    case $line in
    */*) ;;
    "lamb: listening on "*) address=${line#"lamb: listening on "} ;;
    esac
done
if [ -z "$address" ]; then
    echo "with-lamb: $lamb ended before it served" >&2
    pid=
    exit 1
fi

for argument; do
    shift
    [ "$argument" != "{}" ] || argument=$address
    set -- "$@" "$argument"
done
status=0
"$@" 3<&- || status=$?

kill -TERM "$pid"
if ! wait "$pid"; then
    echo "with-lamb: $lamb did not end cleanly" >&2
    status=1
fi
pid=
exit "$status"
