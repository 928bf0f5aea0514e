"""The demo shop under observation. Every test here needs root and eBPF and says so when it skips."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import ROOT, Running

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # its own look-ups would be on the map
]


@pytest.fixture(scope="session")
def can_observe() -> None:
    if os.geteuid() != 0:
        pytest.skip("the agent needs root here")
    result = subprocess.run(
        [sys.executable, "-m", "deepflow.cli", "doctor", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0 or not json.loads(result.stdout)["chosen"].startswith("sockets by"):
        pytest.skip(f"deepflow doctor: the agent cannot run here: {(result.stdout + result.stderr)[-500:]}")


@dataclass
class Shop:
    run: Path
    truth_dir: Path

    def call(self, *arguments: str) -> str:
        env = os.environ | {"SHOP_RUN_DIR": str(self.run), "SHOP_TRUTH_DIR": str(self.truth_dir)}
        command = [str(ROOT / "demo" / "shop"), *arguments]
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def traffic(self, *arguments: str) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.call("traffic", "--json", *arguments))
        return summary

    def traffic_in_background(self, *arguments: str) -> subprocess.Popen[bytes]:
        env = os.environ | {"SHOP_RUN_DIR": str(self.run), "SHOP_TRUTH_DIR": str(self.truth_dir)}
        return subprocess.Popen([str(ROOT / "demo" / "shop"), "traffic", *arguments], env=env)

    def truth(self, service: str, word: str) -> list[dict[str, Any]]:
        """What a service wrote about requests whose path has `word`."""
        lines = (self.truth_dir / f"{service}.jsonl").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if word in entry["path"]]

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.call("status", "--json"))
        return status


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    if os.geteuid() != 0:
        pytest.skip("the shop's network namespace needs root")
    one = Shop(tmp_path / "shop", tmp_path / "truth")
    one.call("up", "--netns", f"df-shop-{os.getpid()}")
    try:
        yield one
    finally:
        one.call("down")


def query(url: str, sql: str, db: str = "flow_log", precision: str | None = None) -> list[dict[str, Any]]:
    form = {"db": db, "sql": sql} | ({"data_precision": precision} if precision else {})
    answer = httpx.post(f"{url}/v1/query/", data=form, trust_env=False, timeout=60)
    body = answer.json()
    assert answer.is_success, body
    return [dict(zip(body["result"]["columns"], row, strict=True)) for row in body["result"]["values"]]


def eventually(check: Callable[[], Any], seconds: float = 30, pause: float = 0.3) -> Any:
    """The first true answer; when none comes, the last answer, for the caller to assert on."""
    deadline = time.monotonic() + seconds
    while not (answer := check()) and time.monotonic() < deadline:
        time.sleep(pause)
    return answer


@dataclass
class Observed:
    shop: Shop
    server: Running
    agent: Running

    @property
    def url(self) -> str:
        return self.server.url

    def rows(self, columns: str, word: str, limit: int = 100_000) -> list[dict[str, Any]]:
        where = f"request_resource LIKE '*{word}*'"
        return query(self.url, f"SELECT {columns} FROM l7_flow_log WHERE {where} LIMIT {limit}")

    def edges(self) -> list[dict[str, Any]]:
        now = int(time.time())
        answer = httpx.get(
            f"{self.url}/v1/web/map", params={"from": now - 600, "to": now + 1}, trust_env=False, timeout=60
        ).json()
        names = {node["id"]: node["name"] for node in answer["nodes"]}
        return [edge | {"client": names[edge["source"]], "server": names[edge["target"]]} for edge in answer["edges"]]


@pytest.fixture
def observed(
    can_observe: None,
    shop: Shop,
    deepflow_server: Callable[..., Running],
    deepflow_agent: Callable[..., Running],
    monkeypatch: pytest.MonkeyPatch,
) -> Observed:
    """A shop with open connections, then a server, then an agent that has begun to see. Statements are shown with their
    values: tests find the rows of a request by the word in them."""
    monkeypatch.setenv("DEEPFLOW_AGENT_PROCESSORS__REQUEST_LOG__TAG_EXTRACTION__OBFUSCATE_PROTOCOLS", "[Redis]")
    shop.traffic("--requests", "40", "--concurrency", "4", "--prefix", "before")
    server = deepflow_server()
    one = Observed(shop, server, deepflow_agent(server.url))
    probes = iter(range(10_000))

    def seen() -> bool:
        word = f"probe{next(probes)}"
        assert one.agent.process.poll() is None, one.agent.said()
        shop.traffic("--requests", "1", "--kind", "item", "--prefix", word)
        return bool(eventually(lambda: one.rows("_id", word), 3))

    assert eventually(seen, 60), one.agent.said() + one.server.said()
    return one


@pytest.fixture
def browser() -> Iterator[Browser]:
    if not shutil.which(CHROMIUM):
        pytest.skip(f"{CHROMIUM} is missing; install chromium")
    if not (ROOT / "deepflow" / "web" / "dist" / "index.html").exists():
        pytest.skip("the page is not built; run make web")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        expect.set_options(timeout=30_000)  # shop, agent, server and browser share the processors
        yield chromium
        chromium.close()
