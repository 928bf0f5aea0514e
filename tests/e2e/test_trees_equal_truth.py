"""50 concurrent requests with distinct paths become 50 trees, each equal to what the shop wrote down."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
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


def lines(tree: Tree, depth: int = 0) -> list[str]:
    """A line a span, so that a difference can be read."""
    *names, children = tree
    return [" " * depth + " ".join(names), *(line for child in children for line in lines(child, depth + 1))]


def tracing(client: httpx.Client, row: str) -> list[dict[str, Any]]:
    now = int(time.time())
    wanted = {"_id": row, "TIME_START": now - 600, "TIME_END": now + 1}
    answer = client.post("/v1/stats/querier/L7FlowTracing", json=wanted)
    assert answer.is_success, answer.text
    spans: list[dict[str, Any]] = answer.json()["DATA"]["tracing"]
    return spans


def rows_by_order(observed: Observed) -> dict[str, set[str]]:
    """Ids of the rows that name each order, in a path, a key or a statement."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in observed.rows("_id, request_resource", "tree-"):
        words = set(re.findall(r"tree-\d+", one["request_resource"]))
        assert len(words) == 1, one
        found[words.pop()].add(str(one["_id"]))
    return found


def assert_tree(spans: list[dict[str, Any]], rows: set[str], truth: Tree, word: str) -> None:
    """One root, all rows of the order and no other, shaped as the truth, children inside their parents."""
    roots = [one for one in spans if not one["deepflow_parent_span_id"]]
    assert len(roots) == 1, f"{word}: {len(roots)} roots"
    held = [row for one in spans for row in one["_ids"]]
    assert len(held) == len(rows) and set(held) == rows, f"{word}: a foreign span, or one is missing"
    assert lines(seen(spans, roots[0])) == lines(truth), word
    by_id = {one["deepflow_span_id"]: one for one in spans}
    for one in spans:
        if one is roots[0]:
            continue
        parent = by_id[one["deepflow_parent_span_id"]]
        assert one["set_parent_info"], f"{word}: an edge without a rule"
        assert parent["start_time_us"] <= one["start_time_us"] <= one["end_time_us"] <= parent["end_time_us"], word


def test_fifty_concurrent_orders_are_fifty_trees_equal_to_the_truth(observed: Observed) -> None:
    summary = observed.shop.traffic("--requests", "50", "--concurrency", "50", "--kind", "order", "--prefix", "tree")
    assert summary["statuses"] == {"200": 50}
    eventually(lambda: len(observed.rows("_id", "tree-")) >= 50 * SPANS_OF_AN_ORDER)

    orders = rows_by_order(observed)
    assert {word: len(rows) for word, rows in orders.items()} == {f"tree-{n}": SPANS_OF_AN_ORDER for n in range(50)}
    asked = [(word, row) for word, rows in sorted(orders.items()) for row in sorted(rows)]
    # Whichever row a person starts from, the tree is the same.
    with httpx.Client(base_url=observed.url, trust_env=False, timeout=60) as client, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda one: tracing(client, one[1]), asked))
    truths = {word: expected(observed.shop, word) for word in orders}
    for (word, _), spans in zip(asked, answers, strict=True):
        assert_tree(spans, orders[word], truths[word], word)
