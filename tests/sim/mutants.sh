#!/bin/sh
# usage: mutants.sh [ROW]...
#
# What the simulator is worth: takes one care of the library away after the other, as the patches in
# mutants/ have it, and looks whether `sim run` tells within SIM_MUTANT_SECONDS. A ROW is the name of
# a patch; without one it is all of them. Works in a copy of the tree, below build/.
# Ends with failure where a patch does not apply, or where what it does is not found.
set -eu

cd "$(dirname "$0")/../.."
seconds=${SIM_MUTANT_SECONDS:-10}
cargo=${CARGO:-cargo}
work=build/sim-mutants
export CARGO_TARGET_DIR="$PWD/$work/target"
# Each of them is built once, and runs for a moment.
export CARGO_PROFILE_SIM_LTO=off CARGO_PROFILE_SIM_DEBUG=false
[ $# -gt 0 ] || set -- $(cd tests/sim/mutants && ls *.patch | sed 's/\.patch$//' | sort -V)

rm -rf "$work/tree"
mkdir -p "$work/tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/tree"

# $1: the patch. What the simulator says, in a few words.
try() {
    # The compiler warns of what a care alone has used.
    if ! (cd "$work/tree" && "$cargo" build --quiet --profile sim --package sim-tests --bin sim) \
        2>"$work/log"; then
        cat "$work/log" >&2
        echo 'DOES NOT BUILD'
        return
    fi
    shapes=$(sed -n 's/^# shapes: //p' "$1")
    "$CARGO_TARGET_DIR/sim/sim" run --as-it-is --seconds "$seconds" ${shapes:+--shape "$shapes"} |
        awk 'NR == 1 { after = $1; time = $4 }
             NR == 2 { sub(":", "", $1); found = $2 " in " $1 }
             END { if (!found) print "NOT FOUND in " after " schedules"
                   else printf "found after %d schedules, %s s, %s\n", after, time, found }'
}

failed=0
for row; do
    patch=tests/sim/mutants/$row.patch
    if git apply --directory="$work/tree" "$patch"; then
        result=$(try "$patch")
        git apply --reverse --directory="$work/tree" "$patch"
    else
        result='DOES NOT APPLY'
    fi
    printf '%-20s | %s\n' "$row" "$result"
    case $result in found*) ;; *) failed=1 ;; esac
done
exit $failed
