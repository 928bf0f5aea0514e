#!/usr/bin/env bash
# The demo: the shop first, then the agent, so that processes and connections are there before it; then traffic, the map and one trace.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
LISTEN="${DEEPFLOW_LISTEN:-127.0.0.1:20416}"
export DEEPFLOW_SERVER="http://$LISTEN"
DATA="$PWD/var/demo"
PID="$DATA/up.pid"
LOG="$DATA/up.log"

stop() { printf 'demo: %s\n' "$*" >&2; exit 1; }
# A pid may have been given to another process: only ours has our data directory in its command line.
runs() { [ -f "$PID" ] && tr '\0' ' ' 2>/dev/null < "/proc/$(cat "$PID")/cmdline" | grep -F -- "--data $DATA" >/dev/null; }
# Runs a command until it prints something; at most the given number of seconds.
until_printed() {
  local end=$((SECONDS + $1)) out
  shift
  while [ "$SECONDS" -lt "$end" ]; do
    if out=$("$@" 2>/dev/null) && [ -n "$out" ]; then printf '%s\n' "$out"; return 0; fi
    sleep 0.5
  done
  return 1
}
edges() { .venv/bin/deepflow map --last 5m --json | .venv/bin/python -c 'import json, sys; print(len(json.load(sys.stdin)["edges"]) or "")' | grep .; }
newest_order() {
  .venv/bin/deepflow query "SELECT _id FROM l7_flow_log WHERE request_resource LIKE '/order/*' AND auto_service_1 = 'nginx' ORDER BY start_time DESC LIMIT 1" --db flow_log --format json \
    | .venv/bin/python -c 'import json, sys; rows = json.load(sys.stdin); print(rows[0]["_id"] if rows else "")' | grep .
}

up() {
  [ "$(id -u)" = 0 ] || stop "the agent needs root to load kernel programs; run make demo as root"
  mkdir -p "$DATA"
  demo/shop status >/dev/null 2>&1 || demo/shop up
  demo/shop traffic --requests 20 --concurrency 4 >/dev/null || true # opens the connections that the agent will find
  if ! runs; then
    setsid .venv/bin/deepflow up --data "$DATA" --listen "$LISTEN" </dev/null >"$LOG" 2>&1 &
    echo $! > "$PID"
    until_printed 60 grep -F 'observes this machine' "$LOG" >/dev/null || { tail -20 "$LOG" >&2; down >/dev/null 2>&1 || true; stop "deepflow up did not start; its log is above"; }
  fi
  # The agent needs a moment to attach: traffic goes on until the first edge is there.
  local end=$((SECONDS + 60))
  until edges >/dev/null 2>&1; do
    runs || { tail -20 "$LOG" >&2; down >/dev/null 2>&1 || true; stop "deepflow up ended; its log is above"; }
    [ "$SECONDS" -lt "$end" ] || { tail -20 "$LOG" >&2; stop "no edge after 60 s; the log of deepflow is above, and: .venv/bin/deepflow doctor"; }
    demo/shop traffic --requests 10 >/dev/null
    sleep 0.5
  done
  demo/shop traffic --requests 300 --concurrency 4 --rate 50
  sleep 4 # the last session's row is on its way
  printf '\nService map of the last 5 minutes\n\n'
  .venv/bin/deepflow map --last 5m
  local row
  row=$(until_printed 20 newest_order) || stop "no order in the request log; see $LOG"
  printf '\nOne order, as a trace (deepflow trace %s)\n\n' "$row"
  .venv/bin/deepflow trace "$row"
  printf '\nThe page: %s/   stop it all: make demo-down\n' "$DEEPFLOW_SERVER"
}

down() {
  if runs; then
    kill -TERM "$(cat "$PID")"
    for _ in $(seq 100); do runs || break; sleep 0.1; done
    runs && kill -KILL -- "-$(cat "$PID")"
  fi
  demo/shop down
  rm -rf "$DATA"
  echo 'demo: stopped'
}

case "${1:-}" in
  up | down) "$1" ;;
  *) stop 'usage: scripts/demo.sh up|down' ;;
esac
