#!/usr/bin/env bash
# Do the tests notice? Breaks one rule after the other, each in a scratch copy of the last commit, and runs the unit tests of
# relay and proto, the simulation and the allocation test on it until one fails. By hand and now and then, not in CI: half a
# minute or so for each.
#
#   scripts/mutants.sh [PATTERN]                  those of tests/mutants/list.txt, or those whose name matches
#   scripts/mutants.sh --random [COUNT] [SEED]    COUNT (100) random changes of src/relay and src/proto
#
# A listed rule that does not apply, does not build or is not noticed makes the script fail. Random changes that do not build
# are not counted; those that survive are told, and are to be looked at.
set -euo pipefail
exec python3 "$(dirname "$0")/../tests/mutants/run.py" "$@"
