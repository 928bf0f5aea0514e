"""From `deepflow up` to the first edge on the map. The time is printed, not asserted."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, unused_port
from tests.e2e.conftest import Shop, eventually


def test_up_shows_the_first_edge(
    can_observe: None, shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listen = f"127.0.0.1:{unused_port()}"
    traffic = shop.traffic_in_background("--seconds", "60", "--rate", "10")
    began = time.monotonic()
    with (tmp_path / "up.log").open("wb") as log:
        command = [sys.executable, "-m", "deepflow.cli", "up", "--data", str(tmp_path / "data"), "--listen", listen]
        up = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def first_edge() -> bool:
        assert up.poll() is None, (tmp_path / "up.log").read_text()
        now = int(time.time())
        try:
            answer = httpx.get(
                f"http://{listen}/v1/web/map", params={"from": now - 300, "to": now + 1}, trust_env=False
            )
        except httpx.HTTPError:
            return False
        return answer.is_success and bool(answer.json()["edges"])

    try:
        seen = eventually(first_edge, 90)
        took = time.monotonic() - began
    finally:
        up.terminate()
        traffic.terminate()
        traffic.wait()
        code = up.wait(15)
    assert seen, (tmp_path / "up.log").read_text()
    assert code == 0
    with capsys.disabled():
        print(f"\nfrom deepflow up to the first edge: {took:.1f} s")
