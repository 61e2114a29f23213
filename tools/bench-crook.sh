#!/bin/sh
# usage: bench-crook.sh ADDRESS CROOK NBDKIT-PLUGIN
#
# Copies of a file to a VDI and back, by crook and by nbdcopy on the nbdkit plugin with the sizes of
# requests that suit it best, in turn: MiB in a second of each, and crook's best as a part of
# nbdcopy's. FILE_MIB and ROUNDS say how much; the file is in TMPDIR, best in memory.
set -eu

address=$1
crook=$2
plugin=$3
mib=${FILE_MIB:-512}
rounds=${ROUNDS:-5}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM
cd "$directory"
export SHEEPDOG_ADDR="$address"

nbdcopy_by() { # nbdcopy_by NAME OF THE VDI, ARGUMENTS of nbdcopy, as a shell has them
    nbdkit --unix - "$plugin" addr="$address" vdi="$1" --run "nbdcopy $2"
}
# rate FILE COMMAND...: appends MiB in a second to FILE.
rate() {
    file=$1
    shift
    begun=$(date +%s%N)
    "$@"
    ended=$(date +%s%N)
    echo "$((mib * 1000000000 / (ended - begun)))" >>"$file"
}
best() {
    sort -n "$@" | tail -n 1
}

head -c "${mib}M" /dev/urandom >source
for _ in $(seq "$rounds"); do
    "$crook" create --quiet disk "${mib}M"
    rate crook-to "$crook" cp --quiet source vdi:disk
    for size in 262144 1048576 4194304; do
        "$crook" rm --quiet disk
        "$crook" create --quiet disk "${mib}M"
        rate "nbdcopy-to-$size" nbdcopy_by disk "--request-size=$size source \"\$uri\""
    done
    rate crook-from "$crook" cp --quiet vdi:disk copy
    cmp source copy
    for size in 262144 1048576 4194304; do
        rm copy
        rate "nbdcopy-from-$size" nbdcopy_by disk "--request-size=$size \"\$uri\" copy"
        cmp source copy
    done
    "$crook" rm --quiet disk
    rm copy
done
for way in to from; do
    for file in crook-$way nbdcopy-$way-*; do
        echo "$file a VDI, MiB/s: $(sort -n "$file" | tr '\n' ' ')"
    done
    ours=$(best crook-$way)
    theirs=$(best nbdcopy-$way-*)
    echo "crook $way a VDI: $ours, nbdcopy: $theirs; $((ours * 100 / theirs)) %"
done
