#!/usr/bin/env bash
# Pins every Python package with its hashes: requirements/run.txt for the wheel, requirements/dev.txt for the checkout, requirements/live.txt for tests/live. No registry is named in them.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
compile() { .venv/bin/uv pip compile -q --no-header --no-emit-index-url --generate-hashes --python-version 3.11 "$@"; }
compile pyproject.toml --group dev -o requirements/dev.txt
compile pyproject.toml -c requirements/dev.txt -o requirements/run.txt
compile requirements/live.in -o requirements/live.txt
