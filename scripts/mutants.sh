#!/usr/bin/env bash
# Do the tests notice? Breaks one rule after the other, each in a scratch copy of the last commit, and runs the unit tests and
# the simulation on it. tests/mutants/list.txt names the rules. By hand and now and then, not in CI: a minute or so for each.
#
#   scripts/mutants.sh [PATTERN]      all of them, or those whose name matches
#
# A mutant that does not apply, does not build or is not noticed is told, and makes the script fail.
set -euo pipefail
cd "$(dirname "$0")/.."
pattern=${1:-}
list=$PWD/tests/mutants/list.txt
work=$(mktemp -d)
finish() {
    git worktree remove --force "$work/tree" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
git worktree add --detach "$work/tree" HEAD >/dev/null 2>&1
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/mutants} CARGO_PROFILE_DEV_DEBUG=0 RUST_BACKTRACE=0
cd "$work/tree"

survived=0
while IFS= read -r line; do
    case $line in '' | '#'*) continue ;; esac
    name=${line%% | *}
    [[ $name =~ $pattern ]] || continue
    git checkout --quiet -- .
    if ! why=$(MUTANT=$line python3 - <<'PYTHON'
import os, re, sys
name, file, old, new = [part.strip().replace("\\|", "|") for part in re.split(r" \| ", os.environ["MUTANT"])]
text = open(file).read()
if text.count(old) != 1:
    sys.exit(f"stands {text.count(old)} times in {file}: {old}")
open(file, "w").write(text.replace(old, new))
PYTHON
    2>&1); then
        echo "NOT APPLIED  $name: $why"
        survived=$((survived + 1))
        continue
    fi
    if ! cargo build --quiet --tests --lib >"$work/build.log" 2>&1; then
        echo "NOT BUILT    $name: $(grep -m1 '^error' "$work/build.log" || true)"
        survived=$((survived + 1))
        continue
    fi
    if timeout 300 cargo test --quiet --lib relay >"$work/unit.log" 2>&1 \
        && timeout 300 cargo test --quiet --test sim >"$work/sim.log" 2>&1; then
        echo "SURVIVED     $name"
        survived=$((survived + 1))
    else
        by=$(cat "$work/unit.log" "$work/sim.log" 2>/dev/null | sed -nE 's/^test (.*) \.\.\. FAILED$|^(.*) --- FAILED$/\1\2/p' | head -3 | tr '\n' ' ' || true)
        echo "caught       $name: ${by:-by a panic or a timeout}"
        rm -f "$work/unit.log" "$work/sim.log"
    fi
done <"$list"
[ "$survived" -eq 0 ]
