"""Packages that only npm has."""

from __future__ import annotations

from pathlib import Path

from tests.live.fetched import fetched
from tests.live.observed import need

SECONDS_TO_FETCH = 600


def modules(name: str, *packages: str) -> str:
    """The folder (NODE_PATH) with these packages; skips, saying why, when it cannot be had."""
    need("node", "npm")

    def command(folder: Path) -> list[str]:
        quiet = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        return ["npm", "install", *quiet, "--prefix", str(folder), *packages]

    return f"{fetched('npm', name, ' '.join(packages), command, SECONDS_TO_FETCH)}/node_modules"
