"""The dispute "the client is slow, the server is fast" over a real way: the page and the command line name the hop."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.conftest import ROOT
from tests.network.programs import DATABASE, WEB, Shop
from tests.network.test_path import DELAY_US, REQUESTS, ready
from tests.network.topology import topology
from tests.network.watched import PACKET, Watch

#: Where the call from api (a2) to mariadbd (b2) is captured, and its point before the slow wire.
WAY = ("eth0", "vetha2", "cni0", "vxlan0", "eth0", "eth0", "vxlan0", "cni0", "vethb2", "eth0")
LOUD = 5


def test_the_slow_wire_is_found(tmp_path: Path, watch: Watch, browser: Browser) -> None:
    folder = tmp_path / "topology"
    folder.mkdir()
    with topology(folder, delay_us=DELAY_US) as made:
        shop = Shop(made)
        watched = watch(made)
        ready(watched, shop)
        shop.buy("page", REQUESTS, connections=2, pause_ms=50)
        web = f"server_port IN ({WEB[1]}, {WEB[3]})"
        database = f"server_port = {DATABASE[1]}"
        watched.await_rows("page", REQUESTS * len(WAY), f"signal_source = {PACKET} AND {database}")
        for calls in (web, database):
            watched.await_rows("page", REQUESTS, f"{calls} AND observation_point = 's-p'")
        # The shortest: one that this machine held up elsewhere on its way would say so, rightly.
        roots = watched.calls("page", "_id, response_duration", f"{web} AND observation_point = 'c-p'")
        root = min(roots, key=lambda row: int(row["response_duration"]))["_id"]
        command = (sys.executable, "-m", "deepflow.cli", "path", "api", "mariadbd", "--server", watched.url)
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{watched.url}/#/trace/{root}")
        page.locator('[data-testid="flame-span"][data-service="api"]').last.click()
        page.get_by_test_id("open-path").click()
        points = page.get_by_test_id("path-point")
        expect(points).to_have_count(2 + len(WAY))
        sides = [point.get_attribute("data-point") for point in points.all()]
        loud = page.locator('[data-testid="path-point"][data-loud="true"]')
        expect(loud).to_have_count(1)
        expect(points.nth(LOUD)).to_have_attribute("data-loud", "true")
        delay = int(loud.get_attribute("data-delay") or 0)
        for interface, point in zip(WAY, points.all()[1:-1], strict=True):
            expect(point).to_contain_text(f"{interface} ")
        expect(points.last).to_be_in_viewport()
        page.mouse.move(5, 5)
        images = ROOT / "docs" / "images" if os.environ.get("DEEPFLOW_KEEP_IMAGES") else tmp_path
        page.screenshot(path=images / "path.png")
    assert not errors
    assert (sides[0], sides[-1]) == ("c-p", "s-p")
    assert [side[0] for side in sides if side] == sorted(side[0] for side in sides if side), sides
    assert 2 * DELAY_US <= delay <= 3 * DELAY_US
    assert told.returncode == 0, told.stderr
    print(told.stdout)
    # The command line sums up many calls: their places stand in the order of the way, too.
    lines = told.stdout.splitlines()
    assert [line.split()[1] for line in lines[3:-1] if line.split()[1] in WAY] == list(WAY), told.stdout
    assert re.search(r"between c \(eth0 of \S+-a on \S+\) and s-nd \(eth0 of \S+-b on \S+\)\.$", lines[-1]), lines[-1]
