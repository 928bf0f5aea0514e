"""50 concurrent requests with distinct paths become 50 trees, each equal to what the shop wrote down."""

from __future__ import annotations

import time
from typing import Any

import httpx

from tests.e2e.conftest import Observed, Shop, eventually

CLIENT, SERVER = "c-p", "s-p"
STORES = {"redis": ("redis-server", "Redis"), "mariadb": ("mariadbd", "MySQL")}
SPANS_OF_AN_ORDER = 18  # nine calls, seen at both ends
Tree = tuple[str, str, str, str, tuple[Any, ...]]  # observation point, service, protocol, label, children


def expected(shop: Shop, word: str) -> Tree:
    entries = {
        service: {entry["path"]: entry for entry in shop.truth(service, word)} for service in ("api", "cart", "stock")
    }

    def call(caller: str, peer: str, resource: str) -> Tree:
        if peer in STORES:
            service, protocol = STORES[peer]
            label = resource.split(maxsplit=1)[0]
            return (CLIENT, caller, protocol, label, ((SERVER, service, protocol, label, ()),))
        calls = entries[peer][resource]["calls"]
        inner = tuple(call(peer, one["peer"], one["resource"]) for one in calls)
        return (CLIENT, caller, "HTTP", resource, ((SERVER, peer, "HTTP", resource, inner),))

    path = f"/order/{word}"
    door = (SERVER, "nginx", "HTTP", path, (call("nginx", "api", path),))
    return (CLIENT, "shopper", "HTTP", path, (door,))


def seen(spans: list[dict[str, Any]], root: dict[str, Any]) -> Tree:
    children = [one for one in spans if one["deepflow_parent_span_id"] == root["deepflow_span_id"]]
    children.sort(key=lambda one: one["start_time_us"])
    protocol, resource = root["l7_protocol_str"], root["request_resource"]
    label = resource if protocol.startswith("HTTP") else resource.split(maxsplit=1)[0].upper()
    name = "HTTP" if protocol.startswith("HTTP") else protocol
    return (root["tap_side"], root["auto_service"], name, label, tuple(seen(spans, one) for one in children))


def tracing(url: str, row: str) -> list[dict[str, Any]]:
    now = int(time.time())
    wanted = {"_id": row, "TIME_START": now - 600, "TIME_END": now + 1}
    answer = httpx.post(f"{url}/v1/stats/querier/L7FlowTracing", json=wanted, trust_env=False, timeout=60)
    assert answer.is_success, answer.text
    spans: list[dict[str, Any]] = answer.json()["DATA"]["tracing"]
    return spans


def test_fifty_concurrent_orders_are_fifty_trees_equal_to_the_truth(observed: Observed) -> None:
    summary = observed.shop.traffic("--requests", "50", "--concurrency", "50", "--kind", "order", "--prefix", "tree")
    assert summary["statuses"] == {"200": 50}
    eventually(lambda: len(observed.rows("_id", "tree-")) >= 50 * SPANS_OF_AN_ORDER)

    for number in range(50):
        word = f"tree-{number}"
        rows = [
            one for one in observed.rows("_id, request_resource", word) if one["request_resource"] == f"/order/{word}"
        ]
        assert rows, f"no row for /order/{word}"
        spans = tracing(observed.url, str(rows[0]["_id"]))

        roots = [one for one in spans if not one["deepflow_parent_span_id"]]
        assert len(roots) == 1, f"{word}: {len(roots)} roots"
        assert all(word in one["request_resource"].replace("'", " ").split("/")[-1].split("?")[0]
                   or word in one["request_resource"] for one in spans), word  # fmt: skip
        assert seen(spans, roots[0]) == expected(observed.shop, word)
        by_id = {one["deepflow_span_id"]: one for one in spans}
        for one in spans:
            if one is roots[0]:
                continue
            parent = by_id[one["deepflow_parent_span_id"]]
            assert one["set_parent_info"], f"{word}: an edge without a rule"
            assert parent["start_time_us"] <= one["start_time_us"] <= one["end_time_us"] <= parent["end_time_us"], word
