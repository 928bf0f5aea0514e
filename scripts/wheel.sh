#!/usr/bin/env bash
# Builds the abi3 wheel from a copy of the tree that has the page and the schema in their places inside the package, then tries it where no compiler is.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/deepflow"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$CACHE/target}"
TREE="$CACHE/wheel-tree"
rm -rf "$TREE" dist
mkdir -p "$TREE" dist
tar -c --exclude=__pycache__ --exclude='*.so' --exclude=target pyproject.toml README.md LICENSE bpf core deepflow schema | tar -x -C "$TREE"
mkdir -p "$TREE/deepflow/schema/tables"
cp schema/*.yaml "$TREE/deepflow/schema/tables/"
.venv/bin/maturin build --release --locked --compatibility linux --manifest-path "$TREE/core/Cargo.toml" --out dist
rm -rf "$TREE"
wheel=$(ls dist/*.whl)
.venv/bin/python - "$wheel" <<'PY'
import sys
import zipfile

names = zipfile.ZipFile(sys.argv[1]).namelist()
for wanted in ("deepflow/_core.abi3.so", "deepflow/web/dist/index.html", "deepflow/schema/tables/l7_flow_log.yaml", "deepflow/_core.pyi", "deepflow/py.typed"):
    if wanted not in names:
        sys.exit(f"wheel: {wanted} is not in {sys.argv[1]}")
PY

home=$(mktemp -d)
trap '[ -z "${server:-}" ] || kill "$server" 2>/dev/null; rm -rf "$home"' EXIT
.venv/bin/uv venv -q --python .venv/bin/python "$home/venv"
.venv/bin/uv pip install -q --python "$home/venv/bin/python" --require-hashes -r requirements/run.txt
.venv/bin/uv pip install -q --python "$home/venv/bin/python" --no-deps "$wheel"
mkdir "$home/bin"
for tool in sh env cat id uname; do ln -s "$(command -v $tool)" "$home/bin/$tool"; done
clean=(env -i HOME="$home" PATH="$home/bin" LANG=C.UTF-8 "$home/venv/bin/deepflow")
inside() { (cd "$home" && "${clean[@]}" "$@"); }
port=$("$home/venv/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
inside --help >/dev/null
inside doctor >/dev/null || [ "$(id -u)" != 0 ] || { echo 'wheel: deepflow doctor says that the agent cannot run here' >&2; exit 1; }
# exec: the process that is killed at the end must be the server itself, not a shell around it
(cd "$home" && exec "${clean[@]}" server --data "$home/data" --listen "127.0.0.1:$port") >/dev/null 2>"$home/server.log" &
server=$!
"$home/venv/bin/python" - "$port" <<'PY' || { cat "$home/server.log" >&2; exit 1; }
import sys
import time

import httpx

for _ in range(300):
    try:
        page = httpx.get(f"http://127.0.0.1:{sys.argv[1]}/", trust_env=False)
        break
    except httpx.HTTPError:
        time.sleep(0.1)
else:
    sys.exit("wheel: the server did not come up")
if page.status_code != 200 or "<script" not in page.text:
    sys.exit(f"wheel: the page is not served: HTTP {page.status_code}")
PY
# An HTTP exchange as a capture file, so that replay has something to read.
"$home/venv/bin/python" scripts/sample_capture.py "$home/sample.pcap"
inside replay sample.pcap --table l7_flow_log --format jsonl | grep '"/sample"' >/dev/null || { echo 'wheel: deepflow replay did not find the request' >&2; exit 1; }
echo "wheel: $wheel, $(du -h "$wheel" | cut -f1), runs in an empty environment"
