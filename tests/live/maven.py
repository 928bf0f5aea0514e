"""Programs that only Maven has: `java/NAME.xml` lists what a program needs, fetched once and kept in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("DEEPFLOW_LIVE_JAVA", Path.home() / ".cache/deepflow/live-java"))
SECONDS_TO_FETCH = 1200


def class_path(name: str) -> str:
    """The class path of `java/NAME.xml`; skips, saying why, when it cannot be had."""
    missing = [program for program in ("java", "mvn") if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (tests/live/packages.txt)")
    folder = CACHE / name
    if not folder.is_dir():
        fetched = CACHE / f"{name}.{os.getpid()}"
        command = [
            "mvn",
            "-q",
            "-B",
            "-f",
            str(Path(__file__).parent / f"java/{name}.xml"),
            "dependency:copy-dependencies",
        ]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS_TO_FETCH)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
            shutil.rmtree(fetched, ignore_errors=True)
            pytest.skip(f"Maven cannot fetch {name}: {failure}")
        try:
            fetched.rename(folder)
        except OSError:
            # Somebody else was faster.
            shutil.rmtree(fetched, ignore_errors=True)
    return f"{folder}/*"
