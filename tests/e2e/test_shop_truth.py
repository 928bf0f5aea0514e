"""The shop itself: it starts, does what its log says it did, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.conftest import Shop, eventually


def test_the_truth_log_tells_every_hop_of_every_request(shop: Shop) -> None:
    summary = shop.traffic("--requests", "50", "--concurrency", "50", "--kind", "order", "--prefix", "hop")

    assert summary["statuses"] == {"200": 50}
    for number in range(50):
        word = f"hop-{number}"
        api = [one for one in shop.truth("api", word) if one["path"] == f"/order/{word}"]
        cart = [one for one in shop.truth("cart", word) if one["path"] == f"/cart/{word}"]
        assert [call["peer"] for call in api[0]["calls"]] == ["redis", "cart", "mariadb", "mariadb", "redis"]
        assert [call["resource"] for call in cart[0]["calls"]] == [f"/reserve/{word}", f"/price/{word}"]
        stock = {one["path"] for one in shop.truth("stock", word)}
        assert {f"/reserve/{word}", f"/price/{word}"} <= stock
    eventually(lambda: len(shop.truth("nginx", "hop-")) >= 50)  # nginx answers first, then writes
    assert len(shop.truth("nginx", "hop-")) == 50


def test_a_stopped_shop_leaves_no_process_no_namespace_and_no_file(shop: Shop) -> None:
    status = shop.status()

    shop.call("down")

    for one in status["processes"]:
        stat = Path(f"/proc/{one['pid']}/stat")
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    assert not Path(f"/run/netns/{status['netns']}").exists()
    assert not shop.run.exists()
    assert os.listdir(shop.truth_dir), "the truth belongs to the one who asked for it"  # noqa: PTH208
