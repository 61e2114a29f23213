#!/bin/sh
# usage: test.sh PLUGIN LAMB
#
# The plugin under clients of other people, on a lamb of its own: nbdinfo, qemu-io, qemu-img, nbdcopy
# and fio, which verifies what it reads; lamb killed under load, and nbdkit ended under load.
set -eu

plugin=$1
lamb=$2
directory=$(mktemp -d)
lamb_pid=
nbdkit_pid=
stop() { # kill and wait for one of ours
    [ -z "$1" ] || { kill -KILL "$1" 2>/dev/null || :; wait "$1" 2>/dev/null || :; }
}
trap 'stop "$nbdkit_pid"; stop "$lamb_pid"; rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM
cd "$directory"

fail() {
    echo "test-nbdkit: $*" >&2
    cat nbdkit.log >&2 2>/dev/null || :
    exit 1
}
# Waits until a command succeeds, for 30 s at most.
until_it() {
    for _ in $(seq 300); do
        "$@" 2>/dev/null && return
        sleep 0.1
    done
    fail "it never came to: $*"
}

start_lamb() {
    "$lamb" --listen "127.0.0.1:$port" store >lamb.log &
    lamb_pid=$!
    until_it grep -q 'listening on 127' lamb.log
    port=$(sed -n 's/^lamb: listening on .*:\([0-9]*\)$/\1/p' lamb.log | head -n 1)
}
# start_nbdkit ARGUMENT...: what of the plugin is to be tried.
start_nbdkit() {
    rm -f nbd.sock
    nbdkit --foreground --exit-with-parent --unix nbd.sock "$plugin" "$@" 2>nbdkit.log &
    nbdkit_pid=$!
    until_it test -S nbd.sock
}
stop_nbdkit() {
    kill -TERM "$nbdkit_pid"
    wait "$nbdkit_pid" || fail "nbdkit ended with $?"
    nbdkit_pid=
}
uri() { # uri [EXPORT]
    echo "nbd+unix:///${1:-}?socket=$directory/nbd.sock"
}
says() { # says TEXT COMMAND...
    text=$1
    shift
    "$@" >out 2>&1 || { cat out >&2; fail "failed: $*"; }
    grep -q -- "$text" out || { cat out >&2; fail "does not say '$text': $*"; }
}
refuses() { # refuses TEXT COMMAND...
    text=$1
    shift
    if "$@" >out 2>&1; then fail "succeeds: $*"; fi
    grep -q -- "$text" out nbdkit.log || { cat out >&2; fail "does not say '$text': $*"; }
}
io() { # io COMMAND...: of qemu-io
    for command; do
        shift
        set -- "$@" -c "$command"
    done
    qemu-io -f raw "$@" "$(uri)" >out 2>&1 || { cat out >&2; fail "qemu-io $*"; }
    ! grep -Eq 'failed|error|mismatch' out || { cat out >&2; fail "qemu-io $*"; }
}

port=0
mkdir store
start_lamb

echo 'test-nbdkit: what it says of itself'
start_nbdkit addr="127.0.0.1:$port" vdi=disk create=256M
nbdinfo "$(uri)" >out
for line in 'export-size: 268435456' 'can_fua: true' 'can_trim: true' 'can_zero: true' \
    'can_fast_zero: true' 'can_multi_conn: true' 'can_cache: true' 'is_read_only: false'; do
    grep -q "$line" out || { cat out >&2; fail "nbdinfo lacks $line"; }
done

echo 'test-nbdkit: qemu-io and qemu-img'
io 'write -P 1 1M 9M' 'read -P 1 1M 9M' 'read -P 0 0 1M' 'write -z 3M 1M' 'read -P 0 3M 1M' \
    'write -z -u 4M 4M' 'read -P 0 3M 5M' 'read -P 1 8M 2M' 'discard 0 16M' 'read -P 0 0 16M' \
    'write -f -P 2 512 1536' 'read -P 2 512 1536' 'read -P 0 2048 512' 'flush' \
    'aio_write -P 3 20M 64k' 'aio_write -P 4 24M 64k' 'aio_flush' 'read -P 3 20M 64k' \
    'read -P 4 24M 64k'
says 'hole,zero' nbdinfo --map "$(uri)"
dd if=/dev/urandom of=image bs=1M count=24 status=none
dd if=/dev/urandom of=image bs=1M seek=100 count=9 conv=notrunc status=none
truncate -s 256M image
qemu-img convert -n -f raw -O raw -W -m 16 image "$(uri)"
says 'identical' qemu-img compare -f raw -F raw image "$(uri)"
says '"zero": true' qemu-img map --output json -f raw "$(uri)"
says 'Run completed' qemu-img bench -f raw -w -c 2000 -d 16 -s 4096 "$(uri)"

echo 'test-nbdkit: nbdcopy, both ways'
truncate -s 256M sparse
mkdir files
cp "$plugin" files/
PATH="$PATH:/usr/sbin:/sbin" mkfs.ext4 -q -d files sparse
nbdcopy --destination-is-zero sparse - >/dev/null
io 'discard 0 256M'
nbdcopy sparse "$(uri)"
nbdcopy "$(uri)" back
cmp sparse back || fail 'what came back of an ext4 is another'
[ "$(stat -c %b back)" -lt 100000 ] || fail 'a sparse image came back whole'

echo 'test-nbdkit: fio'
fio_verifies() {
    fio --name=verify --ioengine=nbd --uri="$(uri)" --size=64M --verify=crc32c --verify_fatal=1 \
        --randseed=7 "$@" >fio.log 2>&1 || { cat fio.log >&2; fail "fio $*"; }
}
fio_verifies --rw=randwrite --bs=4k --iodepth=16
fio_verifies --rw=randrw --bsrange=512-128k --bs_unaligned --iodepth=16
fio_verifies --rw=randtrimwrite --bs=16k --iodepth=1
stop_nbdkit

echo 'test-nbdkit: a server that dies under load'
start_nbdkit addr="127.0.0.1:$port" vdi=disk
fio --name=kill --ioengine=nbd --uri="$(uri)" --size=64M --rw=randwrite --bs=4k --iodepth=16 \
    --verify=crc32c --verify_fatal=1 --time_based --runtime=6 >fio.log 2>&1 &
fio_pid=$!
for _ in 1 2; do
    sleep 1.5
    stop "$lamb_pid"
    start_lamb
done
wait "$fio_pid" || { cat fio.log >&2; fail 'fio beside a server that dies'; }

echo 'test-nbdkit: ended under load'
fio --name=end --ioengine=nbd --uri="$(uri)" --size=64M --rw=randwrite --bs=4k --iodepth=16 \
    --time_based --runtime=600 >fio.log 2>&1 &
fio_pid=$!
sleep 1
kill -TERM "$nbdkit_pid"
until_it sh -c "! kill -0 $nbdkit_pid"
wait "$nbdkit_pid" || fail "nbdkit ended with $?"
nbdkit_pid=
wait "$fio_pid" || : # whose server is gone

echo 'test-nbdkit: exports, snapshots, read-only, URIs and errors'
start_nbdkit "sheepdog://127.0.0.1:$port/second%20disk" create=8M
io 'write -P 5 0 64k'
stop_nbdkit
start_nbdkit addr="127.0.0.1:$port"
says 'second disk' nbdinfo --list "$(uri)"
says '268435456' nbdinfo --size "$(uri disk)"
refuses 'No VDI' nbdinfo "$(uri nothing)"
stop_nbdkit
start_nbdkit -r "sheepdog+tcp://127.0.0.1:$port/disk"
says 'is_read_only: true' nbdinfo "$(uri)"
stop_nbdkit
start_nbdkit addr="127.0.0.1:$port" vdi=disk snapshot=none
refuses 'No snapshot' nbdinfo "$(uri)"
stop_nbdkit
for wrong in snapshot=tag id=0 create=1G 'sheepdog:disk' 'sheepdog+unix:///disk' nonsense=1; do
    refuses 'error:' nbdkit "$plugin" "$wrong" --run 'true'
done
refuses 'connecting' nbdkit --foreground --unix wrong.sock "$plugin" addr=127.0.0.1:1 timeout=1 vdi=disk
echo 'test-nbdkit: passed'
