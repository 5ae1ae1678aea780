#!/usr/bin/env bash
# Did this change cost? Two commits of Ringway side by side, on this machine.
#
#   scripts/bench.sh BASE [HEAD] [--rounds N] [--out DIR]
#
# BASE and HEAD are commits; without HEAD, what is in the working tree is measured. Both are built, each from a work
# tree of its own, and run in interleaved rounds as in compare.sh. Ratios are to BASE: above 1 in the CPU columns is
# dearer than before. The load generator is the working tree's for both, or LOADTEST.
set -euo pipefail
cd "$(dirname "$0")/.."

relay_cpu=${RELAY_CPU:-0}
load_cpu=${LOAD_CPU:-1}
backend_port=${BACKEND_PORT:-19001}
first_port=${FIRST_PORT:-19010}
rounds=5 out="" commits=()
while [ $# -gt 0 ]; do
    case "$1" in
        --rounds) rounds=${2:?--rounds needs a number}; shift ;;
        --out) out=${2:?--out needs a directory}; shift ;;
        -h | --help) sed -n '2,9p' "$0" | cut -c3-; exit 0 ;;
        -*) echo "bench.sh: unknown option $1" >&2; exit 2 ;;
        *) commits+=("$1") ;;
    esac
    shift
done
[ ${#commits[@]} -ge 1 ] && [ ${#commits[@]} -le 2 ] || { echo "usage: scripts/bench.sh BASE [HEAD]" >&2; exit 2; }
results=${out:-bench-results/bench-$(date -u +%Y%m%d-%H%M%S)}
mkdir -p "$results"
work=$(mktemp -d)
. scripts/peers/lib.sh
trees=()
finish() {
    stop_all
    for tree in "${trees[@]}"; do
        git worktree remove --force "$tree" >/dev/null 2>&1 || true
    done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
[ "$(nproc)" -ge 2 ] || die "this needs two CPUs: one for the relay, one for load and backend"

# One target directory for all builds, so that dependencies are built once; binaries are copied out of it.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
loadtest=${LOADTEST:-}
if [ -z "$loadtest" ]; then
    say "building the load generator"
    cargo build --release -p loadtest
    loadtest=$CARGO_TARGET_DIR/release/loadtest
fi

build() { # name [commit]
    local name=$1 commit=${2:-} tree=$PWD
    if [ -n "$commit" ]; then
        tree=$work/$name
        git worktree add --detach "$tree" "$commit" >/dev/null 2>&1 || die "there is no commit $commit"
        trees+=("$tree")
    fi
    say "building $name (${commit:-working tree})"
    (cd "$tree" && cargo build --release -p ringway) || die "$name does not build"
    cp "$CARGO_TARGET_DIR/release/ringway" "$work/ringway-$name"
}
build base "${commits[0]}"
build head "${commits[1]:-}"

start_one() { # name port
    start "$1" "$2" "$work/ringway-$1" --listen "127.0.0.1:$2" --backend "127.0.0.1:$backend_port" \
        --cpus "$relay_cpu" --workers 1
}

on_both() { # cell round scenario options...
    local cell=$1 round=$2 name
    shift 2
    for name in base head; do
        cell "$cell" "$name" "$round" "$@"
    done
}

time=(--warmup 500ms --duration 2s)
for round in $(seq 1 "$rounds"); do
    say "round $round of $rounds"
    start_upstream
    port=$first_port
    # Who starts first changes every round: being second must not be an advantage.
    order=(base head)
    [ $((round % 2)) -eq 0 ] && order=(head base)
    for name in "${order[@]}"; do
        start_one "$name" "$port"
        port=$((port + 1))
    done
    on_both idle-1000 "$round" idle -c 1000 --duration 500ms
    for cell in 64:1 64:64 64:1000 4KiB:64 64KiB:16; do
        on_both "echo-${cell/:/-}" "$round" echo -s "${cell%:*}" -c "${cell#*:}" "${time[@]}"
    done
    on_both fan-out "$round" fan-out -c 201 --rate 50 "${time[@]}"
    on_both slow-reader "$round" slow-reader -c 1100 --slow-percent 91 --read-rate 7KiB --window 1MiB -s 64KiB "${time[@]}"
    on_both churn "$round" churn -c 64 "${time[@]}"
    stop_all
done

mapfile -t files < <(find "$results" -name result.json -printf '%T@ %p\n' | sort -n | cut -d' ' -f2)
{
    echo "base: $(git log -1 --format='%h %s' "${commits[0]}")"
    if [ ${#commits[@]} -eq 2 ]; then
        echo "head: $(git log -1 --format='%h %s' "${commits[1]}")"
    else
        echo "head: working tree on $(git log -1 --format='%h %s')"
    fi
    echo
    "$loadtest" compare --reference base --markdown --html "$results/compare.html" "${files[@]}"
    [ -s "$results/trouble.txt" ] && { echo "trouble:"; sed 's/^/- /' "$results/trouble.txt"; }
    true
} | tee "$results/compare.md"
say "table: $results/compare.md, page: $results/compare.html"
