#!/usr/bin/env bash
# The whole Autobahn test suite through the relay, in both directions, compared with a direct run: also the cases that
# move hundreds of megabytes (9: large messages; 12 and 13: compression), of which the tests run samples.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/env.sh
export RINGWAY_AUTOBAHN_CASES="1.* 2.* 3.* 4.* 5.* 6.* 7.* 9.* 10.*"
export RINGWAY_AUTOBAHN_DEFLATE_CASES="12.* 13.*"
exec cargo test --release --test e2e -- autobahn:: --nocapture --test-threads 1
