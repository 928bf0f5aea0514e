"""The store that tests run against: a ClickHouse server, or chDB with DEEPFLOW_TEST_STORE=chdb.

A process can open only one chDB path, and other tests have theirs; so tests over chDB run in a process of their own
(test_the_same_over_chdb in tests/store and tests/ingest).
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, unused_port

CHDB = "chdb"
KIND = os.environ.get("DEEPFLOW_TEST_STORE", "http")


@contextmanager
def store_url(folder: Path) -> Iterator[str]:
    """Address of an empty store."""
    if KIND == CHDB:
        yield f"chdb://{folder}/store"
        return
    port = unused_port()
    launcher = Path(__file__).with_name("clickhouse_server.py")
    command = [sys.executable, str(launcher), str(folder / "home"), str(folder / "data"), str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _await(process, port, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def run_over_chdb(folder: str) -> None:
    """Runs the tests of a folder again, over chDB."""
    if KIND == CHDB:
        pytest.skip("these tests run over chDB already")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not over_chdb and not server", folder],
        cwd=ROOT,
        env={**os.environ, "DEEPFLOW_TEST_STORE": CHDB},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/ping", trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    pytest.fail(f"ClickHouse out of chdb-core did not start: {log.read_text(errors='replace')[-2000:]}")
