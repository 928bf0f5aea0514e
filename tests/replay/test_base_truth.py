"""TLS, ping, FastCGI and DNS rows of published captures against what tshark reads (``*.truth.json``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.replay.replayed import replayed

Session = dict[str, Any]
Row = dict[str, Any]

SUITES = {
    "0x0035": "TLS_RSA_WITH_AES_256_CBC_SHA",
    "0x0039": "TLS_DHE_RSA_WITH_AES_256_CBC_SHA",
    "0x1301": "TLS_AES_128_GCM_SHA256",
    "0x1302": "TLS_AES_256_GCM_SHA384",
    "0xc011": "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "0xc02f": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "0xc030": "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "0xcca9": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
}
#: Drafts of 1.3 (0x7f12, and Facebook's 0xfb1a) count as 1.3.
VERSIONS = {"0x0301": "1.0", "0x0303": "1.2", "0x0304": "1.3", "0x7f12": "1.3", "0xfb1a": "1.3"}
TYPES = {1: "A", 2: "NS", 6: "SOA", 10: "NULL", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT", 28: "AAAA", 29: "LOC"}
TYPES |= {33: "SRV", 35: "NAPTR", 64: "SVCB", 65: "HTTPS", 99: "SPF", 255: "ANY", 257: "CAA"}


def attributes(row: Row) -> dict[str, str]:
    return dict(zip(row["attribute_names"], row["attribute_values"], strict=True))


def tls(said: Session, row: Row) -> tuple[list[Any], list[Any]]:
    named = attributes(row)
    server: dict[str, Any] = next((one for one in said.get("certificates", []) if one["not_before"]), {})
    dates = [
        str(server.get(name) or "").replace(" (UTC)", "Z").replace(" ", "T") for name in ("not_before", "not_after")
    ]
    alert = int(said["alerts"][0][1]) if said.get("alerts") else None
    want = [said["sni"] or "", VERSIONS[said["version"]], SUITES[said["cipher_suite"]], *dates]
    have = [row["request_domain"], row["version"], named["cipher_suite"]]
    have += [named.get(name, "") for name in ("server_cert_not_before", "server_cert_not_after")]
    return [*want, alert, ",".join(said["alpn"] or [])], [*have, row["response_code"], named.get("alpn_offered", "")]


def ping(said: Session, row: Row) -> tuple[list[Any], list[Any]]:
    want = [str(int(said["id"], 0)), int(said["seq"]), 0]
    return want, [row["request_resource"], row["request_id"], row["response_status"]]


def fastcgi(said: Session, row: Row) -> tuple[list[Any], list[Any]]:
    params = said["params"]
    want = [int(said["request_id"]), *(params[name] for name in ("REQUEST_METHOD", "HTTP_HOST", "REQUEST_URI"))]
    have = [row[name] for name in ("request_id", "request_type", "request_domain", "request_resource")]
    return [*want, params["SCRIPT_NAME"]], [*have, row["endpoint"]]


def dns(said: Session, row: Row) -> tuple[list[Any], list[Any]]:
    want = [int(said["id"], 0), said["query"], TYPES[int(said["qtype"])], said["rcode"]]
    return want, [row[name] for name in ("request_id", "request_resource", "request_type", "response_code")]


FAMILIES: dict[str, tuple[int, Callable[[Session, Row], tuple[list[Any], list[Any]]]]] = {
    "tls": (121, tls),
    "icmp": (122, ping),
    "fastcgi": (44, fastcgi),
    "dns": (120, dns),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from tests.conftest import fixtures

    folder = fixtures() / "pcaps"
    files = sorted(file for family in FAMILIES for file in (folder / family).glob("*.truth.json"))
    metafunc.parametrize("file", files, ids=lambda file: f"{file.parent.name}/{file.name.split('.')[0]}")


def test_fields_agree(file: Path) -> None:
    number, fields = FAMILIES[file.parent.name]
    stem = file.name.removesuffix(".truth.json")
    capture = next(path for suffix in ("pcap", "pcapng") if (path := file.with_name(f"{stem}.{suffix}")).exists())
    sessions = json.loads(file.read_text())["sessions"]
    rows = replayed(capture)
    assert {row["l7_protocol"] for row in rows} == {number}
    assert len(rows) == len(sessions)
    for said, row in zip(sessions, rows, strict=True):
        want, have = fields(said, row)
        assert have == want
        assert row["type"] == 2
