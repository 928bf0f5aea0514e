"""A person's way through the page: map → edge → request → flame graph; each step leaves a picture."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import ROOT, Running
from tests.e2e.conftest import Observed, eventually, query

REQUESTS = 200
ORDER_SPANS = 18  # shopper, nginx 2, api 1 + 5 calls, redis-server 2, cart 1 + 2 calls, stock 2, mariadbd 2
KINDS = {
    "nginx": "process",
    "api": "process",
    "cart": "process",
    "stock": "process",
    "redis-server": "cache",
    "mariadbd": "database",
}
CALLS = {
    ("shopper", "nginx", "HTTP"),
    ("nginx", "api", "HTTP"),
    ("api", "redis-server", "Redis"),
    ("api", "mariadbd", "MySQL"),
    ("api", "cart", "HTTP"),
    ("cart", "stock", "HTTP"),
}


@pytest.fixture
def deepflow_agent(deepflow_agent: Callable[..., Running]) -> Callable[..., Running]:
    """As everywhere, but blind to other DeepFlows on this machine: the pictures show the shop."""
    lines = {int(one.parent.name): command_line(one) for one in Path("/proc").glob("[0-9]*/cmdline")}
    others = [pid for pid, words in lines.items() if b"deepflow.cli" in words and {b"server", b"agent"} & set(words)]
    ignored = [word for pid in others for word in ("--ignore-pid", str(pid))]
    return lambda url, *arguments: deepflow_agent(url, *ignored, *arguments)


def command_line(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().split(b"\0")
    except OSError:  # the process has ended meanwhile
        return []


def test_a_person_follows_an_edge_to_a_request_to_its_flame_graph(
    observed: Observed, browser: Browser, tmp_path: Path
) -> None:
    start = int(time.time())
    observed.shop.traffic("--requests", str(REQUESTS), "--concurrency", "4", "--rate", "40", "--prefix", "page")
    end = int(time.time()) + 1
    where = f"time >= {start} AND time < {end} AND observation_point = 's-p'"

    def served() -> int:
        """What nginx said it served, other shops on this machine included."""
        sql = f"SELECT Count(row) AS calls FROM l7_flow_log WHERE {where} AND auto_service_1 = 'nginx'"
        return int(query(observed.url, sql)[0]["calls"])

    def on_the_map() -> int:
        edges = httpx.get(
            f"{observed.url}/v1/web/map", params={"from": start, "to": end}, trust_env=False, timeout=60
        ).json()
        names = {node["id"]: node["name"] for node in edges["nodes"]}
        return sum(edge["request"] for edge in edges["edges"] if names[edge["target"]] == "nginx")

    # Client and server both saw every call; the map counts it once.
    assert eventually(lambda: on_the_map() == served() >= REQUESTS), (on_the_map(), served())
    images = ROOT / "docs" / "images" if os.environ.get("DEEPFLOW_KEEP_IMAGES") else tmp_path
    images.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)

    see_the_map(page, f"{observed.url}/#/map?from={start}&to={end}", images / "map.png")
    page.locator('[data-testid="map-edge"][data-client="nginx"][data-server="api"]').click()
    see_the_requests(page, images / "requests.png")
    page.get_by_test_id("request-row").first.click()
    see_the_trace(page, images / "trace.png")
    page.get_by_test_id("nav-agents").click()
    expect(page.get_by_test_id("agent-row")).to_have_attribute("data-lost", "0")
    expect(page.get_by_test_id("agent-row")).to_contain_text("running")
    page.screenshot(path=images / "agents.png")
    assert not errors


def see_the_map(page: Page, url: str, image: Path) -> None:
    page.goto(url)
    for name, kind in KINDS.items():
        expect(page.locator(f'[data-testid="map-node"][data-name="{name}"]')).to_have_attribute("data-kind", kind)
    for client, server, protocol in CALLS:
        row = f'[data-testid="map-edge"][data-client="{client}"][data-server="{server}"]'
        expect(page.locator(row)).to_have_attribute("data-protocol", protocol)
    # Agent, test and page talk to the server all the time: that is not what the reader came to see.
    assert page.locator('[data-testid="map-edge"][data-client="chromium"][data-protocol="HTTP"]').count() == 0
    page.screenshot(path=image)


def see_the_requests(page: Page, image: Path) -> None:
    rows = page.get_by_test_id("request-row")
    expect(rows.first).to_be_visible()
    expect(page.get_by_test_id("filter-client")).to_have_value("nginx")
    expect(page.get_by_test_id("filter-protocol")).to_have_value("HTTP")
    page.wait_for_timeout(300)  # the chart is drawn in the next frames
    page.screenshot(path=image)
    page.get_by_test_id("filter-status").select_option("error")
    expect(page.locator('[data-testid="request-row"][data-status="Success"]')).to_have_count(0)
    assert rows.count() > 0
    page.get_by_test_id("filter-status").select_option("")
    page.get_by_test_id("filter-path").fill("/order/page")
    expect(page.locator('[data-testid="request-row"]:not([data-resource*="/order/page"])')).to_have_count(0)
    expect(rows.first).to_be_visible()


def see_the_trace(page: Page, image: Path) -> None:
    expect(page.get_by_test_id("trace-title")).to_contain_text("HTTP GET /order/page")
    expect(page.get_by_test_id("flame-span")).to_have_count(ORDER_SPANS)
    expect(page.get_by_test_id("span-row")).to_have_count(ORDER_SPANS)
    for service in ("shopper", *KINDS):
        expect(page.locator(f'[data-testid="flame-span"][data-service="{service}"]').first).to_be_visible()
    page.mouse.move(5, 5)
    page.screenshot(path=image)
    page.locator('[data-testid="flame-span"][data-service="mariadbd"]').first.click()
    details = page.get_by_test_id("span-details")
    expect(details).to_contain_text("MySQL")
    expect(details).to_contain_text("same TCP request sequence")
    page.keyboard.press("Escape")
    expect(details).to_have_count(0)


def test_the_page_asks_once_for_the_token(
    deepflow_server: Callable[..., Running], browser: Browser, tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    secret.write_text("0123456789abcdef\n")
    server = deepflow_server("--token-file", str(secret))
    page = browser.new_page()
    page.goto(server.url)
    form = page.get_by_test_id("token-form")
    form.get_by_label("Token").fill("0123456789abcdeg")
    form.get_by_role("button").click()
    expect(form.get_by_role("alert")).to_have_text("The server refused this token.")
    form.get_by_label("Token").fill("0123456789abcdef")
    form.get_by_role("button").click()
    expect(page.get_by_test_id("empty")).to_contain_text("No calls seen yet")
    page.reload()
    page.get_by_test_id("nav-agents").click()
    expect(page.get_by_test_id("empty")).to_contain_text("No agent has registered yet")
    expect(form).to_have_count(0)


def test_a_server_that_went_away_is_a_sentence(deepflow_server: Callable[..., Running], browser: Browser) -> None:
    server = deepflow_server()
    page = browser.new_page()
    page.goto(f"{server.url}/#/requests?status=nonsense")
    expect(page.get_by_test_id("error")).to_contain_text("There is no response status 'nonsense'")
    server.stop()
    page.get_by_test_id("nav-map").click()
    expect(page.get_by_test_id("error")).to_have_text(re.compile("^The server cannot be reached"))
