"""Packages that only npm has, fetched once and kept in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("DEEPFLOW_LIVE_NODE", Path.home() / ".cache/deepflow/live-node"))
SECONDS_TO_FETCH = 600


def modules(name: str, *packages: str) -> str:
    """The folder (NODE_PATH) with these packages; skips, saying why, when it cannot be had."""
    missing = [tool for tool in ("node", "npm") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (tests/live/packages.txt)")
    folder = CACHE / name
    if not folder.is_dir():
        fetched = CACHE / f"{name}.{os.getpid()}"
        fetched.mkdir(parents=True)
        command = [
            "npm",
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
            str(fetched),
        ]
        try:
            subprocess.run([*command, *packages], check=True, capture_output=True, timeout=SECONDS_TO_FETCH)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
            shutil.rmtree(fetched, ignore_errors=True)
            pytest.skip(f"npm cannot fetch {', '.join(packages)}: {failure}")
        try:
            fetched.rename(folder)
        except OSError:
            # Somebody else was faster.
            shutil.rmtree(fetched, ignore_errors=True)
    return f"{folder}/node_modules"
