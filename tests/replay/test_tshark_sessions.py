"""What tshark read in other people's captures (``*.truth.json``), against the rows: every exchange is found.

Only clean captures count. Those of which not every exchange agrees stand in ``ledger/tshark.yaml`` with the cause.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.replay.replayed import replayed

LEDGER: dict[str, str] = yaml.safe_load((Path(__file__).parent / "ledger/tshark.yaml").read_text()) or {}
Read = Callable[[dict[str, Any]], Any]

#: By folder: l7_protocol, and the same of a session of tshark's (None: not to be compared) and of a row.
READINGS: dict[str, tuple[int, Read, Read]] = {
    "dns": (
        120,
        lambda s: (int(s["id"], 16), s["query"], s["rcode"]),
        lambda r: (r["request_id"], r["request_resource"], r["response_code"]),
    ),
    "http": (20, lambda s: s["request"], lambda r: f"{r['request_type']} {r['request_resource']}"),
    "icmp": (122, lambda s: int(s["seq"]), lambda r: r["request_id"]),
    "thrift": (
        200,
        lambda s: (s["method"], int(s["seq_id"])),
        lambda r: (r["request_type"], r["request_id"]),
    ),
    "someip": (
        47,
        lambda s: (f"{s['service_id']}/{s['method_id']}", int(s["session_id"], 16), int(s.get("returncode", "-1"), 16)),
        lambda r: (r["endpoint"], r["request_id"], -1 if r["response_code"] is None else r["response_code"]),
    ),
    "amqp": (102, lambda s: s["method"], lambda r: r["request_type"]),
    "mysql": (
        60,
        lambda s: (
            (s["query"], int(s["error_code"] or 0)) if s["query"] and s["command"].upper().endswith("QUERY") else None
        ),
        lambda r: (r["request_resource"], r["response_code"] or 0),
    ),
    "postgresql": (
        61,
        lambda s: s["query"] if s["type"] == "Simple query" else None,
        lambda r: r["request_resource"],
    ),
    "mqtt": (101, lambda s: s["type"].upper(), lambda r: r["request_type"].upper()),
    "tls": (121, lambda s: s["sni"] or "", lambda r: r["request_domain"]),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from tests.conftest import fixtures

    index = fixtures() / "pcaps/INDEX.tsv"
    lines = list(csv.DictReader(index.read_text().splitlines(), delimiter="\t")) if index.exists() else []
    clean = [index.parent / line["file"] for line in lines if (line["role"], line["quality"]) == ("sessions", "clean")]
    files = [file for file in clean if file.parent.name in READINGS]
    metafunc.parametrize("file", files, ids=lambda file: f"{file.parent.name}/{file.name}")


def test_every_exchange_is_found(file: Path) -> None:
    protocol, of_session, of_row = READINGS[file.parent.name]
    truth = json.loads(file.with_suffix(".truth.json").read_text())
    wanted = Counter(said for session in truth["sessions"] if (said := of_session(session)) is not None)
    found = Counter(of_row(row) for row in replayed(file) if row["l7_protocol"] == protocol)
    missing = wanted - found
    name = f"{file.parent.name}/{file.name}"
    if name in LEDGER:
        assert missing, f"{name} agrees now and must leave ledger/tshark.yaml"
    elif missing:
        pytest.fail(f"{name}: not found {dict(missing)}\nfound instead {dict(found - wanted)}", pytrace=False)
