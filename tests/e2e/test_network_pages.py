"""A person looks for the lost time: network map → edge; trace → path. The rows are made, no privileges are needed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, expect

from tests.conftest import ROOT, Running
from tests.e2e.conftest import eventually
from tests.two_nodes import Cluster

COUNT = 40
SLOW_US = 3_000_000
POINTS = ["c-p", "c", "c-nd", "s-nd", "s", "s-p"]


def test_the_lost_time_is_found(deepflow_server: Callable[..., Running], browser: Browser, tmp_path: Path) -> None:
    server = deepflow_server()
    second = int(time.time()) - 120
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http:
        Cluster(http, second).fill(second, COUNT, "c-nd", SLOW_US, {"c": 2, "c-nd": 2})
        bounds = {"from": second - 5, "to": second + 60}
        assert eventually(lambda: http.get("/v1/web/network-map", params=bounds).json()["edges"])
        listed = http.get("/v1/web/requests", params=bounds | {"path": "/cart/", "limit": 1000}).json()["rows"]
    assert len(listed) == COUNT
    images = ROOT / "docs" / "images" if os.environ.get("DEEPFLOW_KEEP_IMAGES") else tmp_path
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    span = f"from={bounds['from']}&to={bounds['to']}"
    see_the_network(page, f"{server.url}/#/map?{span}", images / "network-map.png")
    see_the_path(page, f"{server.url}/#/trace/{listed[0]['_id']}", tmp_path / "path.png")
    assert not errors


def see_the_network(page: Page, url: str, image: Path) -> None:
    page.goto(url)
    expect(page.get_by_test_id("map-edge").first).to_be_visible()
    page.get_by_test_id("map-network").click()
    expect(page.locator("h1")).to_have_text("Network map")
    # Behind the translations two addresses are left of the call; each flow is counted at one place all the same.
    edge = page.locator('[data-testid="map-edge"][data-client="shop"]')
    expect(edge).to_have_attribute("data-requests", str(COUNT * 14))
    expect(edge).to_have_attribute("data-health", "slow")
    expect(edge.locator('[data-column="retrans"]')).to_contain_text("7.14 %")
    edge.click()
    card = page.get_by_test_id("network-card")
    expect(card).to_contain_text(f"{COUNT} → · ← 0")
    page.wait_for_timeout(300)  # the map is drawn in the next frames
    page.mouse.move(5, 5)
    page.screenshot(path=image)
    page.get_by_test_id("map-application").click()
    expect(page.locator('[data-testid="map-edge"][data-client="cart"]')).to_have_attribute("data-requests", str(COUNT))
    expect(card).to_have_count(0)


def see_the_path(page: Page, url: str, image: Path) -> None:
    page.goto(url)
    expect(page.get_by_test_id("flame-span")).to_have_count(len(POINTS) + 4)
    page.locator('[data-testid="flame-span"][data-service="shop"]').click()
    page.get_by_test_id("open-path").click()
    points = page.get_by_test_id("path-point")
    expect(points).to_have_count(len(POINTS))
    assert [point.get_attribute("data-point") for point in points.all()] == POINTS
    loud = page.locator('[data-testid="path-point"][data-loud="true"]')
    expect(loud).to_have_count(1)
    expect(loud).to_have_attribute("data-point", "c-nd")
    expect(loud).to_have_attribute("data-delay", str(SLOW_US + 200))
    expect(page.get_by_test_id("path-sentence")).to_contain_text("the client says 3.00 s, the server says 3.00 ms")
    page.mouse.move(5, 5)
    page.screenshot(path=image)
    # A line leads to its span, a span of another call to its path.
    loud.click()
    expect(page.get_by_test_id("span-details")).to_contain_text("Client K8s Node")
    page.locator('[data-testid="flame-span"][data-service="mysqld"]').click()
    expect(points).to_have_count(4)
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("path")).to_have_count(0)
