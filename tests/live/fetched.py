"""Programs from registries that need no installation: fetched once and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.observed import CACHE


def fetched(tool: str, name: str, recipe: str, command: Callable[[Path], list[str]], seconds: float) -> Path:
    """The folder that `command` (for a folder) fills, kept under `name` and a hash of `recipe`: what it fetches.

    Skips, saying why, when it cannot be had.
    """
    folder = CACHE / f"live-{tool}" / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
        fresh.mkdir(parents=True)
        try:
            subprocess.run(command(fresh), check=True, capture_output=True, text=True, timeout=seconds)
        except subprocess.CalledProcessError as failure:
            shutil.rmtree(fresh, ignore_errors=True)
            pytest.skip(f"{tool} cannot fetch {name}: {(failure.stdout + failure.stderr)[-500:]}")
        except subprocess.TimeoutExpired as failure:
            shutil.rmtree(fresh, ignore_errors=True)
            pytest.skip(f"{tool} cannot fetch {name}: {failure}")
        try:
            fresh.rename(folder)
        except OSError:
            # Somebody else was faster.
            shutil.rmtree(fresh, ignore_errors=True)
    return folder
