# Shared by compare.sh and bench.sh: starting what is measured, and measuring one cell. Sourced, not run.

die() { echo "$(basename "$0"): $*" >&2; exit 1; }
say() { echo "== $*" >&2; }

pids=()
stop_all() {
    local pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    pids=()
}

# Fails if something else listens there, since one would then measure that. A process that has just ended may hold its
# port for a moment: the kernel takes its rings down afterwards.
free_port() { # port
    local i
    for i in $(seq 1 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || return 0
        sleep 0.05
    done
    die "port $1 is taken"
}

wait_port() { # port pid name
    local i
    for i in $(seq 1 200); do
        kill -0 "$2" 2>/dev/null || die "$3 did not start, see $work/$3.log"
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.05
    done
    die "$3 does not listen on port $1, see $work/$3.log"
}

# The backend, on the load's CPU. Its process id is left in $upstream_pid.
start_upstream() {
    free_port "$backend_port"
    taskset -c "$load_cpu" "$loadtest" upstream --listen "127.0.0.1:$backend_port" --cpus "$load_cpu" \
        >"$work/upstream.log" 2>&1 &
    upstream_pid=$!
    pids+=("$upstream_pid")
    wait_port "$backend_port" "$upstream_pid" upstream
}

# Starts a candidate on the relay's CPU. Its process id is left in ${pid_of[name]}.
declare -A pid_of port_of
start() { # name port command...
    local name=$1 port=$2
    shift 2
    free_port "$port"
    taskset -c "$relay_cpu" "$@" >"$work/$name.log" 2>&1 &
    pid_of[$name]=$!
    port_of[$name]=$port
    pids+=("$!")
    wait_port "$port" "$!" "$name"
}

# One cell: a scenario against a candidate. The result lands in $results/CELL/NAME-ROUND. The caller's start_one
# starts a candidate by name and port.
cell() { # cell name round scenario options...
    local cell=$1 name=$2 round=$3 status=0
    shift 3
    local directory="$results/$cell/$name-$round"
    timeout 120 "$loadtest" run "$@" --quiet --label "$name" --cpus "$load_cpu" --interval 250ms \
        --url "ws://127.0.0.1:${port_of[$name]}/" --watch-pid "${pid_of[$name]}" \
        --output "$directory" >"$work/run.log" 2>&1 || status=$?
    if [ "$status" -ne 0 ]; then
        echo "$cell $name round $round: exit $status: $(grep -hE 'because|loadtest:' "$work/run.log" | tr '\n' ' ')" \
            | tee -a "$results/trouble.txt" >&2
    fi
    # A candidate that has died is told, and started again: it must not take the others' figures with it.
    if ! kill -0 "${pid_of[$name]}" 2>/dev/null; then
        local end=0
        wait "${pid_of[$name]}" 2>/dev/null || end=$?
        echo "$name died in $cell, round $round (exit $end): $(tail -n 3 "$work/$name.log" | tr '\n' ' ')" \
            | tee -a "$results/trouble.txt" >&2
        start_one "$name" "${port_of[$name]}"
    fi
}

# A number from a result: field cell name round.
figure() { # path-in-json cell name round
    python3 - "$results/$2/$3-$4/result.json" "$1" <<'PY'
import json, sys
try:
    value = json.load(open(sys.argv[1]))
    for key in sys.argv[2].split("."):
        value = value[key]
    print(value)
except (OSError, KeyError, TypeError):
    print(0)
PY
}
