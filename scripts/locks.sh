#!/usr/bin/env bash
# Pins every Python package with its hashes: requirements/run.txt for the wheel, requirements/dev.txt for the checkout. No registry is named in them.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
compile() { .venv/bin/uv pip compile pyproject.toml -q --no-header --no-emit-index-url --generate-hashes --python-version 3.11 "$@"; }
compile --group dev -o requirements/dev.txt
compile -c requirements/dev.txt -o requirements/run.txt
