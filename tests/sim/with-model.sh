#!/bin/sh
# usage: with-model.sh MODEL-SERVER COMMAND [ARGUMENT]...
#
# Runs the command beside a fresh model-server; an argument {} becomes its HOST:PORT.
# Ends with the command's exit status.
set -eu

server=$1
shift
directory=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || { kill "$pid"; wait "$pid" 2>/dev/null || :; }; rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM

mkfifo "$directory/output"
"$server" >"$directory/output" &
pid=$!
read -r line <"$directory/output"
address=${line#"model-server: listening on "}

for argument; do
    shift
    [ "$argument" != "{}" ] || argument=$address
    set -- "$@" "$argument"
done
"$@"
