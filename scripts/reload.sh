#!/usr/bin/env bash
# How long does a reload take? From SIGHUP to the log line, reading the file included.
#
#   scripts/reload.sh [ROUNDS]
#
# 1,000 routes to 1,000 pools of 10 backends, of which every reload replaces one in each pool, and changes limits.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-9}
cargo build --release -p ringway
work=$(mktemp -d)
relay=""
trap '[ -z "$relay" ] || kill "$relay" 2>/dev/null || true; rm -rf "$work"' EXIT

write() { # round
    awk -v round="$1" 'BEGIN {
        print "[[listeners]]\naddress = \"127.0.0.1:0\""
        for (p = 0; p < 1000; p++) {
            printf "[[pools]]\nname = \"p%d\"\nbalance = \"least-connections\"\nbackends = [", p
            for (b = 1; b <= 10; b++) printf "\"10.%d.%d.%d:9000\",", p / 250, p % 250, b + round % 2
            printf "]\n[[routes]]\nhost = \"h%d.example.com\"\npath_segments = \"/r%d\"\npool = \"p%d\"\n", p, p, p
            printf "[routes.limits]\nmessage_bytes_max = \"%dKiB\"\n", 64 + round % 3
        }
    }' > "$work/new.toml"
    mv "$work/new.toml" "$work/ringway.toml"
}
reloads() { grep -c ' reloaded ' "$work/log" || true; }

write 0
target/release/ringway -c "$work/ringway.toml" --workers 1 2> "$work/log" &
relay=$!
until grep -q ' ready ' "$work/log"; do
    kill -0 "$relay" || { cat "$work/log" >&2; exit 1; }
    sleep 0.05
done
for round in $(seq "$rounds"); do
    write "$round"
    kill -HUP "$relay"
    until [ "$(reloads)" -ge "$round" ]; do
        kill -0 "$relay" && ! grep -q ' refused' "$work/log" || { cat "$work/log" >&2; exit 1; }
        sleep 0.02
    done
done
grep ' reloaded ' "$work/log" | sed 's/.* ms=//' | sort -n |
    awk '{ ms[NR] = $1 } END { print "reload: median " ms[int((NR + 1) / 2)] " ms (" ms[1] "-" ms[NR] "), " NR " rounds" }'
