#!/usr/bin/env bash
# Installs what the tests need, and nothing that is there already: Debian packages (as root), a Python venv in
# .deps/venv and npm packages in .deps/node. Quick when all is there. `scripts/env.sh bench` adds the proxies that
# the benchmarks compare with.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "env.sh: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# One line per need: the command that shows it is there, and the Debian package that brings it.
packages=()
need() { have "$1" || packages+=("$2"); }
need python3 python3
need node nodejs
need npm npm
need cc gcc
need c++ g++
need chromium chromium
need dnsmasq dnsmasq-base
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
if [ "${1:-}" = bench ]; then
    need haproxy haproxy
    need nginx nginx-light
fi
if [ ${#packages[@]} -gt 0 ]; then
    have apt-get || die "please install these by hand, apt-get is not here: ${packages[*]}"
    [ "$(id -u)" = 0 ] || die "please install as root: apt-get install ${packages[*]}"
    echo "env.sh: installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Another apt may hold the lock; services of what we install must not start by themselves.
    apt=(apt-get -qq -o DPkg::Lock::Timeout=600)
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    "${apt[@]}" update || die "apt-get update failed"
    "${apt[@]}" install -y --no-install-recommends "${packages[@]}" >/dev/null || die "apt-get install ${packages[*]} failed"
fi
have cargo || die "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or later"
for part in fmt clippy; do
    cargo $part --version >/dev/null 2>&1 || die "cargo $part is missing: rustup component add ${part/fmt/rustfmt}"
done

# A stamp holds the pins it was made from, so that a changed pin reinstalls and an unchanged one costs nothing.
fresh() { [ -f "$2" ] && cmp -s "$1" "$2"; }

if ! fresh tests/peers/requirements.txt .deps/venv/pins || ! .deps/venv/bin/python -c 'import websockets' 2>/dev/null; then
    echo "env.sh: Python packages into .deps/venv"
    rm -rf .deps/venv
    python3 -m venv .deps/venv || die "python3 -m venv failed"
    .deps/venv/bin/pip install -q --disable-pip-version-check -r tests/peers/requirements.txt || die "pip install failed"
    cp tests/peers/requirements.txt .deps/venv/pins
fi

if ! fresh tests/peers/package.json .deps/node/pins; then
    echo "env.sh: npm packages into .deps/node"
    mkdir -p .deps/node
    cp tests/peers/package.json .deps/node/package.json
    (cd .deps/node && npm install --silent --no-audit --no-fund --no-package-lock) || die "npm install failed"
    cp tests/peers/package.json .deps/node/pins
fi
