#!/usr/bin/env bash
# What CI runs, and all of it: formatting, lints, a smoke run of fuzzing and of the benches, every test. Tests come last,
# so that their summary is what one sees.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo; echo "== $*"; "$@"; }

step scripts/env.sh
step cargo fmt --all --check
step cargo clippy --workspace --all-targets -- -D warnings
# Each bench once, in smoke size.
step cargo test --workspace --benches
[ ! -x scripts/fuzz.sh ] || step scripts/fuzz.sh smoke
step cargo test --workspace --no-fail-fast
