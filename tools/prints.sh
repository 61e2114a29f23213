#!/bin/sh
# usage: prints.sh FILE COMMAND [ARGUMENT]...
#
# Runs the command, which has to succeed, and to print what is in the file.
set -eu

expected=$1
shift
output=$("$@")
printf '%s\n' "$output" | diff -u "$expected" -
