#!/usr/bin/env bash
# Sessions of every kind of ending, over and over for some time (an hour unless told otherwise): no descriptor, buffer or
# page of memory may be missing at the end. `scripts/soak.sh 600` runs for ten minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/env.sh
export RINGWAY_SOAK_SECONDS="${1:-3600}"
exec cargo test --release --test e2e -- leaks::l37_soak --nocapture --exact
