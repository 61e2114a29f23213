#!/bin/sh
# usage: with-model.sh COMMAND [ARGUMENT]...
#
# Runs the command beside a fresh model-server; an argument {} becomes its HOST:PORT.
# Ends with the command's exit status.
set -eu

directory=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || { kill "$pid"; wait "$pid" 2>/dev/null || :; }; rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM

mkfifo "$directory/output"
# cargo knows where it puts the program, and becomes it.
# shellcheck disable=SC2086 # a command, perhaps with options
${CARGO:-cargo} run --quiet --profile sim --package sim-tests --bin model-server \
    >"$directory/output" &
pid=$!
read -r line <"$directory/output" || exit 1
address=${line#"model-server: listening on "}

for argument; do
    shift
    [ "$argument" != "{}" ] || argument=$address
    set -- "$@" "$argument"
done
"$@"
