#!/bin/sh
# usage: test-tgt.sh [SOCKET]
#
# An independent client: tgtd, which has a Sheepdog client of its own, exports a VDI over iSCSI, and
# all that libiscsi's test suite has about SCSI runs against that; what it has about iSCSI concerns
# the two of them only. Only the tests in tests/tgt/known-failures may fail. The VDI is one of a
# lamb, or of the server with the Unix socket SOCKET (an absolute path), where it stays.
#
# Where tgtd or the suite is missing, or there is no way to be root, the test is skipped, but with
# CI in the environment it fails.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C PATH="$PATH:/usr/sbin" # tgtd is in sbin

fail() {
    echo "test-tgt: $*" >&2
    exit 1
}
skip() {
    [ -z "${CI:-}" ] || fail "$1, and CI is set"
    echo "test-tgt: $1, skipped"
    exit 0
}

for command in tgtd tgtadm iscsi-test-cu; do
    command -v "$command" >/dev/null ||
        skip "$command is not installed (packages tgt, libiscsi-bin)"
done

# tgtd itself needs no privileges, but takes orders from root alone; the root of a user namespace
# will do.
if [ "$(id -u)" -ne 0 ]; then
    if unshare --map-root-user true 2>/dev/null; then
        exec unshare --map-root-user tools/test-tgt.sh "$@"
    elif sudo -n true 2>/dev/null; then
        exec sudo -n env CI="${CI:-}" CC="${CC:-cc}" LAMB="${LAMB:-}" \
            LAMB_OPTION="${LAMB_OPTION:-}" tools/test-tgt.sh "$@"
    fi
    skip "tgtd cannot be controlled without root"
fi

directory=$(mktemp -d)
tgtd=
trap '[ -z "$tgtd" ] || kill -KILL "$tgtd" 2>/dev/null || :; rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM

# Through a Unix socket, for tgtd 1.0.85 reads no TCP port of more than four digits. with-lamb.sh
# keeps the lamb's socket to itself, so the lamb it starts is one that puts it here.
if [ $# -eq 0 ]; then
    socket=$directory/sock
    cat >"$directory/lamb" <<END
#!/bin/sh
exec "${LAMB:-$PWD/build/bin/lamb}" --unix "$socket" "\$@"
END
    chmod +x "$directory/lamb"
    LAMB=$directory/lamb tools/with-lamb.sh tools/test-tgt.sh "$socket"
    exit
fi
socket=$1

vdi=test-tgt-$$
${CC:-cc} -Wall -Wextra -Werror -Iinclude tests/tgt/create.c -Lbuild/lib -lsheepdog \
    -Wl,-rpath,"$PWD/build/lib" -o "$directory/create"
"$directory/create" "$socket" "$vdi" 64

# The socket for orders, too, is one that no other tgtd has.
export TGT_IPC_SOCKET="$directory/orders"
# For GET LBA STATUS tgtd looks for holes in a file that a VDI does not have: its descriptor is what
# was in memory, in some builds 0. On /dev/null tgtd would look for ever; a pipe has it fail.
: | tgtd --foreground --iscsi portal=127.0.0.1:0 >"$directory/log" 2>&1 &
tgtd=$!
order() {
    timeout --foreground 30 tgtadm --lld iscsi "$@"
}
tries=100
until portal=$(order --op show --mode portal 2>/dev/null); do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ] || ! kill -0 "$tgtd" 2>/dev/null; then
        cat "$directory/log" >&2
        fail "tgtd does not start"
    fi
    sleep 0.1
done
portal=${portal#"Portal: "}
target=iqn.2001-04.com.example:$vdi
if ! {
    order --op new --mode target --tid 1 --targetname "$target" &&
        order --op new --mode logicalunit --tid 1 --lun 1 \
            --bstype sheepdog --backing-store "unix:$socket:$vdi" &&
        order --op bind --mode target --tid 1 --initiator-address 127.0.0.1
}; then
    cat "$directory/log" >&2
    fail "tgtd does not export the VDI"
fi

# Its exit status does not tell which tests fail. The limit is for a tgtd that has lost its server,
# and tries for ever.
timeout --foreground 600 iscsi-test-cu --dataloss --test=SCSI "iscsi://${portal%%,*}/$target/1" \
    >"$directory/output" 2>&1 || :

# A test's verdict ends the line with its name, or stands alone below messages of the test.
awk '
    /^Suite: / { suite = $2 }
    /^  Test: / { test = suite "." $2 }
    /^  Test: .*\.\.\.FAILED$/ || /^FAILED$/ { print test }
' "$directory/output" | sort >"$directory/failed"
sed '/^#/d; /^$/d' tests/tgt/known-failures | sort >"$directory/known"

# The run has to reach its end, with every test that the suite has.
all=$(iscsi-test-cu --list | grep -c '^SCSI\.[^.]*\.[^.]*$') || :
summary=$(sed -n 's/^ *tests *//p' "$directory/output")
# shellcheck disable=SC2086 # total, run, passed, failed, inactive
set -- ${summary:-0 0 0 0 0}
if [ "$all" -eq 0 ] || [ "$2" -ne "$all" ] || [ "$4" -ne "$(wc -l <"$directory/failed")" ]; then
    tail -n 30 "$directory/output" "$directory/log" >&2
    fail "the suite did not come to its end ($2 of $all tests)"
fi

# Which gives the VDI's lock back.
order --op delete --mode logicalunit --tid 1 --lun 1 || fail "tgtd does not close the VDI"

unexpected=$(comm -23 "$directory/failed" "$directory/known")
if [ -n "$unexpected" ]; then
    awk -v tests="$unexpected" '
        BEGIN { n = split(tests, names); while (n) wanted[names[n--]] }
        /^Suite: / { suite = $2; shown = 0 }
        /^  Test: / { shown = (suite "." $2) in wanted; if (shown) print "Suite: " suite }
        shown
    ' "$directory/output" >&2
    tail -n 30 "$directory/log" >&2
    # shellcheck disable=SC2086 # on one line
    fail "these tests fail, other than on a real server:" $unexpected
fi
passing=$(comm -13 "$directory/failed" "$directory/known")
# shellcheck disable=SC2086
[ -z "$passing" ] || echo "test-tgt: known failures that pass with this tgtd:" $passing
skipping=$(awk '/^  Test: / { n++ } /\[SKIPPED\]/ { seen[n] } END { print length(seen) }' \
    "$directory/output")
echo "test-tgt: of $2 tests $3 pass ($skipping skip what tgtd lacks), $4 fail as on a real server"
