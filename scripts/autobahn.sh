#!/usr/bin/env bash
# The whole Autobahn test suite through the relay, in both directions, compared with a direct run. Without arguments:
# the cases that move hundreds of megabytes too (9: large messages, 12 and 13: compression). Otherwise the cases named:
#
#     scripts/autobahn.sh '9.*' '12.1.*'
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/env.sh
set -f   # the cases are patterns, but not of files
[ $# -gt 0 ] || set -- '1.*' '2.*' '3.*' '4.*' '5.*' '6.*' '7.*' '9.*' '10.*' '12.*' '13.*'
export RINGWAY_AUTOBAHN_CASES="$*"
exec cargo test --release --test e2e -- autobahn:: --nocapture --test-threads 1
