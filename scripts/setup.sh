#!/usr/bin/env bash
# Installs and builds what the project needs on Debian 12; quick when nothing changed. Usage: scripts/setup.sh [system] [python] [core] [web] [live] (default: all but live)
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/deepflow"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$CACHE/target}"
STAMPS=build/stamps
mkdir -p "$CACHE" "$STAMPS"

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Hash of the contents of files and folders, whatever git ignores left out.
hash_of() {
  { find "$@" -type f -not -path '*/node_modules/*' -not -path '*/__pycache__/*' -not -path '*/target/*' -print0 | sort -z | xargs -0 sha256sum; "$PYTHON" --version; } | sha256sum | cut -d' ' -f1
}
fresh() { [ -f "$STAMPS/$1" ] && [ "$(cat "$STAMPS/$1")" = "$2" ]; }

# (No grep -q: it leaves at the first match, and apt-cache, still writing, would fail the pipe.)
candidate() { apt-cache policy "$1" 2>/dev/null | grep 'Candidate: [0-9]' >/dev/null; }
installed() { [ "$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null)" = 'install ok installed' ]; }

enabled_services() { [ ! -d /run/systemd/system ] || systemctl list-unit-files --type=service --state=enabled --no-legend | cut -d' ' -f1 | sort; }

# Installs Debian packages. A service that ran before stays as it was; one that only this installation brings stays off.
apt_install() {
  local before service
  # A package's services must not start here: Debian asks this file first.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
  fi
  before=$(enabled_services)
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$CACHE/apt.log" 2>&1 || return 1
  for service in $(comm -13 <(echo "$before") <(enabled_services)); do systemctl disable --now -q "$service" || true; done
}

system() {
  command -v apt-get >/dev/null || stop "this script knows Debian only; install clang, llvm, libbpf headers, nginx, MariaDB, Redis, Node and Go yourself"
  local clang='' version wanted package missing=()
  for version in 19 18 17 16; do
    if installed "clang-$version" && installed "llvm-$version"; then clang=$version; break; fi
  done
  wanted="libbpf-dev gcc libc6-dev iproute2 nginx-light mariadb-server redis-server dnsmasq-base bind9-dnsutils python3-pymysql python3-redis chromium fonts-dejavu-core wrk tcpdump iperf3"
  command -v node >/dev/null || wanted+=" nodejs npm"
  PATH="$PATH:/usr/local/go/bin" command -v go >/dev/null || wanted+=" golang-go"
  if [ -n "$clang" ]; then
    installed "clang-format-$clang" || wanted+=" clang-format-$clang"
  fi
  for package in $wanted; do installed "$package" || missing+=("$package"); done
  [ -n "$clang" ] && [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" = 0 ] || stop "not root, and these Debian packages are missing: ${missing[*]:-} ${clang:-clang-19 llvm-19}; install them, then come back"
  say "apt: ${missing[*]:-}${clang:+ }$([ -n "$clang" ] || echo ' clang')"
  apt-get update -qq || stop "apt-get update failed; is a Debian mirror configured?"
  if [ -z "$clang" ]; then
    for version in 19 18 17 16; do
      if candidate "clang-$version"; then
        clang=$version
        missing+=("clang-$version" "llvm-$version" "clang-format-$version")
        break
      fi
    done
    [ -n "$clang" ] || stop "apt has no clang-16 to clang-19; the kernel programs need one of them"
  fi
  apt_install "${missing[@]}" || { tail -20 "$CACHE/apt.log" >&2; stop "apt-get install failed; its output is in $CACHE/apt.log"; }
}

# Makes an empty Python environment in a folder.
environment() {
  rm -rf "$1"
  "$PYTHON" -m venv "$1" >/dev/null 2>&1 && return
  rm -rf "$1"
  if [ "$(id -u)" = 0 ] && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null 2>&1 && "$PYTHON" -m venv "$1"; then
    return
  fi
  rm -rf "$1"
  "$PYTHON" -m pip install -q --target "$CACHE/virtualenv" virtualenv || stop "no way to make a virtual environment; install python3-venv"
  PYTHONPATH="$CACHE/virtualenv" "$PYTHON" -m virtualenv -q "$1"
}

python() {
  if [ ! -x .venv/bin/python ]; then
    say "Python environment"
    environment .venv
    rm -f "$STAMPS/python" "$STAMPS/core"
  fi
  local now
  now=$(hash_of requirements/dev.txt)
  fresh python "$now" && return
  say "Python packages (pinned in requirements/dev.txt)"
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
  echo "$now" > "$STAMPS/python"
}

# Real servers and their official clients. What cannot be had here is left out: its tests skip and say so.
live() {
  local package now missing=() available=()
  for package in $(grep -v '^#' tests/live/packages.txt); do
    case $package in # may come from elsewhere
      nodejs) command -v node >/dev/null && continue ;;
      npm) command -v npm >/dev/null && continue ;;
    esac
    installed "$package" || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "apt: ${missing[*]}"
    apt-get update -qq || say "apt-get update failed"
    for package in "${missing[@]}"; do
      if candidate "$package"; then available+=("$package"); else say "no package $package here"; fi
    done
    [ ${#available[@]} -eq 0 ] || apt_install "${available[@]}" || say "apt-get install failed; its output is in $CACHE/apt.log"
  elif [ ${#missing[@]} -gt 0 ]; then
    say "not installed, so their tests skip: ${missing[*]}"
  fi
  now=$(hash_of requirements/live.txt)
  [ "$(cat "$CACHE/live/requirements" 2>/dev/null)" = "$now" ] && [ -x "$CACHE/live/bin/python" ] && return
  say "Python packages for tests/live (pinned in requirements/live.txt)"
  [ -x "$CACHE/live/bin/python" ] || environment "$CACHE/live"
  if "$CACHE/live/bin/python" -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/live.txt; then
    echo "$now" > "$CACHE/live/requirements"
  else
    say "not all packages of requirements/live.txt could be installed: tests skip"
  fi
}

core() {
  local now profile
  # Cargo judges by time stamps and by paths inside the checkout: what another checkout left in the shared cache would pass for ours.
  if [ "$(cat "$CARGO_TARGET_DIR/checkout" 2>/dev/null)" != "$PWD" ]; then
    command -v cargo >/dev/null || stop "cargo is missing; install Rust 1.88 or newer"
    for profile in dev release; do
      cargo clean --quiet --package deepflow-core --profile "$profile" --manifest-path core/Cargo.toml
    done
    mkdir -p "$CARGO_TARGET_DIR"
    echo "$PWD" > "$CARGO_TARGET_DIR/checkout"
  fi
  now=$(hash_of core bpf schema pyproject.toml)
  if fresh core "$now" && compgen -G 'deepflow/_core*.so' >/dev/null && [ -x .venv/bin/deepflow ]; then return; fi
  say "Rust core and kernel programs"
  env -u CONDA_PREFIX VIRTUAL_ENV="$PWD/.venv" .venv/bin/maturin develop --release --locked --uv >"$CACHE/core.log" 2>&1 \
    || { tail -40 "$CACHE/core.log" >&2; stop "the core did not build; the whole output is in $CACHE/core.log"; }
  echo "$now" > "$STAMPS/core"
}

web() {
  local now
  now=$(hash_of web)
  fresh web "$now" && [ -f deepflow/web/dist/index.html ] && return
  command -v npm >/dev/null || stop "npm is missing; install Node 20.19 or newer"
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' \
    || stop "the page is built with Node 20.19 or 22.12 and newer; here is $(node --version)"
  say "web page"
  (cd web && npm ci --silent --no-fund --no-audit && npm run --silent build) >"$CACHE/web.log" 2>&1 \
    || { tail -40 "$CACHE/web.log" >&2; stop "the page did not build; the whole output is in $CACHE/web.log"; }
  echo "$now" > "$STAMPS/web"
}

PYTHON=$(command -v python3.11 || command -v python3) || stop "Python 3.11 is missing"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || stop "Python 3.11 or newer is needed; here is $("$PYTHON" --version)"
if [ $# -eq 0 ]; then
  system
  # The page needs neither Python nor Rust. What fails says why; the other one is waited for.
  web & page=$!
  { python; core; } & rest=$!
  failed=0
  wait "$rest" || failed=1
  wait "$page" || failed=1
  [ $failed = 0 ] || stop "not everything could be set up; the reason is above"
  exit 0
fi
for part in "$@"; do
  case $part in
    system | python | core | web | live) "$part" ;;
    *) stop "no part named $part; the parts are system, python, core, web and live" ;;
  esac
done
