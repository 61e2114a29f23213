#!/bin/sh
# usage: fuzz.sh build|run|minimise|coverage DIRECTORY [TARGET...]
#
# The fuzzing targets of fuzz/, without cargo-fuzz, which takes minutes to install; built into
# DIRECTORY. Without a TARGET: all of them, one after the other.
#
# run       fuzzes each for FUZZ_SECONDS, from fuzz/corpus, or else the recorded sessions
#           (fuzz/seeds.py), and what earlier runs have left in DIRECTORY; what fails is in DIRECTORY/artifacts, and
#           runs again as an argument of the program in DIRECTORY/asan
# minimise  makes fuzz/corpus what covers as much as all that was found and the seeds, in the fewest
#           bytes
# coverage  what lines that reaches, with llvm-cov (rustup component add llvm-tools)
#
# A stable toolchain has the sanitizer that cargo-fuzz uses as well, but not the switch, which
# RUSTC_BOOTSTRAP opens.
set -eu

command=$1
directory=$2
shift 2
mkdir -p "$directory"
targets=${*:-$(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"|\1|p' fuzz/Cargo.toml)}
host=$(rustc -vV | sed -n 's/^host: //p')
# Those of cargo-fuzz.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
    --cfg fuzzing"

# build FLAGS SUBDIRECTORY
build() {
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="$1" CARGO_TARGET_DIR="$directory/$2" \
        ${CARGO:-cargo} build --release --locked --manifest-path fuzz/Cargo.toml --target "$host"
}

# Leaks are counted by the targets themselves.
export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
store() {
    memory=/dev/shm
    [ -w "$memory" ] || memory=${TMPDIR:-/tmp}
    FUZZ_STORE=$(mktemp -d "$memory/fuzz.XXXXXX")
    export FUZZ_STORE
    trap 'rm -rf "$FUZZ_STORE"' EXIT
    trap 'exit 1' INT TERM
}

seeds() {
    rm -rf "$directory/seeds"
    python3 fuzz/seeds.py "$directory/seeds"
}

# options TARGET: what libFuzzer is to know.
options() {
    echo "-timeout=60 -rss_limit_mb=2048 -malloc_limit_mb=128 -detect_leaks=0 -print_final_stats=1"
    case $1 in
    lamb) echo "-max_len=4096" ;;
    maps) echo "-max_len=2048" ;;
    address) echo "-max_len=512" ;;
    *) echo "-max_len=1024" ;;
    esac
}

build "$coverage -Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer" asan
bin=$directory/asan/$host/release
case $command in
build) ;;
run)
    store
    failed=
    mkdir -p "$directory/artifacts"
    seeds
    for target in $targets; do
        mkdir -p "$directory/corpus/$target" "fuzz/corpus/$target"
        echo "fuzz: $target, for ${FUZZ_SECONDS:-20} s"
        log=$directory/$target.log
        known=fuzz/corpus/$target
        # What was minimised has all of the seeds that matters.
        [ -n "$(ls "$known")" ] || known=$directory/seeds/$target
        # shellcheck disable=SC2046 # a list of options
        "$bin/$target" $(options "$target") -max_total_time="${FUZZ_SECONDS:-20}" \
            -artifact_prefix="$directory/artifacts/$target-" \
            "$directory/corpus/$target" "$known" >"$log" 2>&1 ||
            failed="$failed $target"
        case $failed in
        *" $target") tail -n 60 "$log" ;;
        *) grep -E 'DONE|number_of_executed_units' "$log" || true ;;
        esac
    done
    if [ -n "$failed" ]; then
        echo "fuzz: failed:$failed (in $directory/artifacts)" >&2
        exit 1
    fi
    ;;
minimise)
    store
    seeds
    for target in $targets; do
        mkdir -p "$directory/corpus/$target" "fuzz/corpus/$target"
        new=$directory/minimised/$target
        rm -rf "$new"
        mkdir -p "$new"
        # shellcheck disable=SC2046
        "$bin/$target" $(options "$target") -merge=1 "$new" "fuzz/corpus/$target" \
            "$directory/corpus/$target" "$directory/seeds/$target" 2>&1 | tail -n 3
        rm -rf "fuzz/corpus/$target"
        mv "$new" "fuzz/corpus/$target"
        du -sb "fuzz/corpus/$target"
    done
    ;;
coverage)
    store
    build "-Cinstrument-coverage $coverage" coverage
    # Those of rustc's own LLVM, where they are.
    PATH="$(rustc --print sysroot)/lib/rustlib/$host/bin:$PATH"
    bin=$directory/coverage/$host/release
    for target in $targets; do
        rm -f "$directory/$target.profraw"
        # shellcheck disable=SC2046
        LLVM_PROFILE_FILE="$directory/$target.profraw" "$bin/$target" $(options "$target") \
            -runs=0 "fuzz/corpus/$target" >/dev/null 2>&1
        llvm-profdata merge -sparse "$directory/$target.profraw" -o "$directory/$target.profdata"
        echo "coverage: $target"
        llvm-cov report "$bin/$target" -instr-profile="$directory/$target.profdata" \
            -ignore-filename-regex='registry|rustc|/fuzz/|/sim/src/[a-z]' |
            awk 'NF > 9 && $8 ~ /^[0-9]+$/ && $10 != "0.00%" {print $1, $10, "of", $8, "lines"}'
    done
    ;;
*)
    sed -n '2,18s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
