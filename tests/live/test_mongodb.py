"""MongoDB driven by pymongo: writes, cursors, errors, an unacknowledged write. The server is SecantusDB."""

from __future__ import annotations

from collections import Counter

from tests.live.observed import LIVE_PYTHON, Observed, need

MONGODB = 81

CLIENT = """
import json, pymongo
client = pymongo.MongoClient("127.0.0.1", 27017, serverMonitoringMode="poll")
shop = client.shop
for i in range(20):
    shop.orders.insert_one({"_id": i, "note": "n" * 100})
shop.orders.insert_many([{"_id": 100 + i} for i in range(30)])
found = len(list(shop.orders.find({"_id": {"$lt": 20}}, batch_size=5)))
shop.orders.update_many({"_id": {"$gte": 100}}, {"$set": {"paid": True}})
errors = 0
for fails in (lambda: shop.orders.insert_one({"_id": 1}), lambda: shop.command("nonsense")):
    try:
        fails()
    except pymongo.errors.PyMongoError:
        errors += 1
quiet = shop.get_collection("orders", write_concern=pymongo.WriteConcern(w=0))
quiet.insert_one({"_id": 999})
shop.orders.find_one({"_id": 999})
print(json.dumps([found, errors]))
"""


def attribute(row: dict[str, object], name: str) -> object:
    names, values = row["attribute_names"], row["attribute_values"]
    assert isinstance(names, list) and isinstance(values, list)
    return dict(zip(names, values, strict=True)).get(name)


def test_commands_cursors_and_errors(seen: Observed) -> None:
    server = LIVE_PYTHON.parent / "secantusd-py"
    need(str(server))
    seen.start(
        *(server, "--host", "127.0.0.1", "--port", "27017", "--storage-path", ":memory:"),
        *("--cache-size", "64M", "--standalone"),
        port=27017,
    )
    assert seen.python(CLIENT) == [20, 2]
    for point in ("c-p", "s-p"):
        rows = [row for row in seen.rows(MONGODB, point) if attribute(row, "database") == "shop"]
        assert {row["request_type"] for row in rows} == {"OP_MSG"}
        assert all(row["type"] == 2 for row in rows)
        count = Counter(attribute(row, "command") for row in rows)
        assert count["insert"] == 23 and count["update"] == 1 and count["nonsense"] == 1
        assert count["find"] == 2 and count["getMore"] >= 3
        failed = [(attribute(row, "command"), row["response_code"]) for row in rows if row["response_status"] == 3]
        assert failed == [("insert", 11000), ("nonsense", 59)]
        silent = [
            row for row in rows if '"_id": 999' in row["request_resource"] and attribute(row, "command") == "insert"
        ]
        assert len(silent) == 1 and silent[0]["response_result"] == ""
        assert all(
            attribute(row, "collection") == "orders" for row in rows if attribute(row, "command") in ("find", "insert")
        )
    assert not seen.others(MONGODB)
