#!/usr/bin/env bash
# Fuzzes for a bounded time: scripts/fuzz.sh [smoke|TARGET] [SECONDS]
#
#   smoke      every target, 10 seconds each (the default); what scripts/check.sh runs
#   all        every target, 600 seconds each
#   TARGET     one of tests/fuzz/fuzz_targets, 600 seconds
#
# What was found is kept in tests/fuzz/artifacts, what was learned in tests/fuzz/corpus. A toolchain of any channel will do.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "fuzz.sh: $*" >&2; exit 1; }

targets=()
for file in tests/fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
seconds=600
case "${1:-smoke}" in
    smoke) seconds=10 ;;
    all) ;;
    *)
        [ -f "tests/fuzz/fuzz_targets/$1.rs" ] || die "no such target: $1 (there are: ${targets[*]})"
        targets=("$1")
        ;;
esac
seconds=${2:-$seconds}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "not a number of seconds: $seconds"

version=0.13.2
if [ "$(.deps/bin/cargo-fuzz --version 2>/dev/null)" != "cargo-fuzz $version" ]; then
    echo "fuzz.sh: installing cargo-fuzz $version into .deps"
    # Not into the project's own target directory: the two must not wait for each other.
    CARGO_TARGET_DIR=.deps/target cargo install --quiet --root .deps cargo-fuzz --locked --version "$version" \
        || die "cargo install cargo-fuzz failed"
    rm -rf .deps/target
fi
command -v c++ >/dev/null || die "libFuzzer is built with a C++ compiler: apt-get install g++"

# Sanitizers are behind a flag that a stable compiler accepts only so.
RUSTC_BOOTSTRAP=1 .deps/bin/cargo-fuzz build --fuzz-dir tests/fuzz || die "the fuzz targets do not build"
host=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-tests/fuzz/target}/$host/release

for target in "${targets[@]}"; do
    echo "fuzz.sh: $target for $seconds s"
    # New inputs go to the first directory; the seeds are only read.
    corpus=(tests/fuzz/corpus/"$target")
    artifacts=tests/fuzz/artifacts/$target/
    mkdir -p "${corpus[@]}" "$artifacts"
    [ -d "tests/fuzz/seeds/$target" ] && corpus+=("tests/fuzz/seeds/$target")
    options=(-max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$artifacts")
    [ -f "tests/fuzz/$target.dict" ] && options+=(-dict="tests/fuzz/$target.dict")
    log=$(mktemp)
    if ! "$built/$target" "${corpus[@]}" "${options[@]}" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        rm -f "$log"
        die "$target has failed; see above, and again with: $built/$target ${artifacts}FILE"
    fi
    grep -E '^stat::number_of_executed_units|^Done' "$log" || true
    rm -f "$log"
done
