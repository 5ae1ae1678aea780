#!/usr/bin/env bash
# What CI runs, and all of it: formatting, lints, a smoke run of the benches and of fuzzing, every test. Tests come last,
# so that their summary is what one sees.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo; echo "== $*"; "$@"; }

step scripts/env.sh
step cargo fmt --all --check
step cargo clippy --workspace --all-targets -- -D warnings
# Each bench once, to see that it runs.
RINGWAY_BENCH_SMOKE=1 step cargo test --workspace --bench '*'
[ ! -x scripts/fuzz.sh ] || step scripts/fuzz.sh smoke
step cargo test --workspace --doc

# cargo tells the result of each test binary where it ran; the sum is told at the end, pass or fail.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
step cargo test --workspace --lib --bins --tests --no-fail-fast 2>&1 | tee "$log" || status=$?
echo
grep -E '^test .* FAILED$' "$log" || true
grep '^test result: ' "$log"
awk '/^test result: / { passed += $4; failed += $6; skipped += $8 }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
exit "$status"
