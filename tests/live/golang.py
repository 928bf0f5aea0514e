"""Programs in Go of these tests: `go/NAME`, built against the modules that its go.sum pins."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

USUAL_PLACE = "/usr/local/go/bin/go"
SECONDS_TO_BUILD = 600


def program(name: str, folder: Path) -> Path:
    """The program, built into `folder`; skips, saying why, when it cannot be had."""
    go = shutil.which("go") or shutil.which(USUAL_PLACE)
    if not go:
        pytest.skip("not installed: go")
    built = folder / name
    try:
        subprocess.run(
            [go, "build", "-mod=readonly", "-o", built, "."],
            cwd=Path(__file__).parent / "go" / name,
            env=os.environ | {"GOTOOLCHAIN": "local"},
            check=True,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_BUILD,
        )
    except subprocess.TimeoutExpired as failure:
        pytest.skip(f"Go cannot build {name}: {failure}")
    except subprocess.CalledProcessError as failure:
        # No network, or a Go that is older than what go.mod names.
        if any(words in failure.stderr for words in ("dial tcp", "lookup ", "requires go >=")):
            pytest.skip(f"Go cannot build {name} here: {failure.stderr[-500:]}")
        pytest.fail(f"Go cannot build {name}: {failure.stderr[-3000:]}")
    return built
