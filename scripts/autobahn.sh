#!/usr/bin/env bash
# The whole Autobahn test suite through the relay, in both directions, compared with a direct run: also the cases that
# move hundreds of megabytes (9: large messages; 12 and 13: compression), of which the tests run samples. An hour or so;
# in groups, so that one sees where it is. Or only the groups that are named:
#
#     scripts/autobahn.sh '9.*' '12.1.*'
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/env.sh
set -f   # the groups are patterns, but not of files
[ $# -gt 0 ] || set -- '1.* 2.* 3.* 4.* 5.* 6.* 7.* 10.*' '9.*' \
    '12.1.*' '12.2.*' '12.3.*' '12.4.*' '12.5.*' '13.1.*' '13.2.*' '13.3.*' '13.4.*' '13.5.*' '13.6.*' '13.7.*'
export RINGWAY_AUTOBAHN_LONG=1
for group in "$@"; do
    echo "== $group"
    # 12 and 13 need a peer that can compress, the others a strict one.
    case $group in
        12.*|13.*) under=DEFLATE_CASES tests=(autobahn::suite_is_the_client_with_deflate autobahn::suite_is_the_server_with_deflate) ;;
        *) under=CASES tests=(autobahn::suite_is_the_client autobahn::suite_is_the_server) ;;
    esac
    env "RINGWAY_AUTOBAHN_$under=$group" \
        cargo test --quiet --release --test e2e -- --exact "${tests[@]}" --nocapture --test-threads 1
done
