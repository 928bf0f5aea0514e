"""A person's way through the page: map → edge → request → flame graph; each step leaves a picture."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.conftest import ROOT
from tests.e2e.conftest import Observed, eventually

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
]


def test_a_person_follows_an_edge_to_a_request_to_its_flame_graph(observed: Observed, tmp_path: Path) -> None:
    if not shutil.which(CHROMIUM):
        pytest.skip(f"{CHROMIUM} is missing; install chromium")
    if not (ROOT / "deepflow" / "web" / "dist" / "index.html").exists():
        pytest.skip("the page is not built; run scripts/setup.sh web")
    observed.shop.traffic("--requests", "200", "--concurrency", "4", "--rate", "40", "--prefix", "page")
    wanted = {("nginx", "api"), ("api", "redis-server"), ("api", "mariadbd"), ("api", "cart"), ("cart", "stock")}
    found = eventually(lambda: wanted <= {(one["client"], one["server"]) for one in observed.edges()})
    assert found, observed.edges()
    images = ROOT / "docs" / "images" if os.environ.get("DEEPFLOW_KEEP_IMAGES") else tmp_path
    images.mkdir(parents=True, exist_ok=True)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 860})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        try:
            walk(page, observed, images)
        finally:
            browser.close()
    assert not errors


def walk(page: Page, observed: Observed, images: Path) -> None:
    page.goto(f"{observed.url}/")
    for name in ("nginx", "api", "cart", "stock", "redis-server", "mariadbd"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=20_000)
    page.wait_for_timeout(1000)  # the layout of the graph is animated
    page.screenshot(path=images / "map.png")

    edge = page.get_by_role("row").filter(has_text="nginx").filter(has_text="api").first
    edge.click()
    request = page.get_by_role("row").filter(has_text="/order/page-").first
    expect(request).to_be_visible(timeout=20_000)
    page.screenshot(path=images / "requests.png")

    request.click()
    expect(page.get_by_text("mariadbd").first).to_be_visible(timeout=20_000)
    expect(page.get_by_text("stock").first).to_be_visible()
    page.screenshot(path=images / "trace.png")
