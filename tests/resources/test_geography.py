"""Columns of addresses become texts, by a database that the test writes."""

import ipaddress
import logging
from pathlib import Path

import pyarrow as pa
import pytest

from deepflow.resources import Geography, GeographyError
from tests.geography_file import write_geography

PLACES = {
    "81.2.69.0": "England",
    "81.2.69.255": "England",
    "81.2.70.0": "",
    "89.160.20.112": "Sweden",
    "89.160.20.111": "",
    "2.125.160.1": "United Kingdom",
    "67.43.156.1": "BT",
    "5.5.5.5": "California",
    "6.6.6.6": "France",
    "7.7.7.7": "",
    "8.8.9.9": "",
    "1.1.1.1": "",
    "2a02:cf40::1": "Norway",
    "2a02:cf41::1": "",
    "2400:cb00:ffff::": "England",
}
NOT_PUBLIC = (
    "0.0.0.0", "10.1.2.3", "127.0.0.1", "100.64.0.1", "169.254.1.1", "192.168.0.1", "203.0.113.7", "224.0.0.251",
    "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fd00::1", "ff02::fb", "2001:db8::1",
)  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_geography(tmp_path / "places.mmdb")


def provinces(geography: Geography, addresses: list[str]) -> list[str]:
    ips = [ipaddress.ip_address(address) for address in addresses]
    found = geography.provinces(
        pa.chunked_array([pa.array([int(ip.version == 4) for ip in ips], pa.uint8())]),
        pa.chunked_array([pa.array([int(ip) if ip.version == 4 else 0 for ip in ips], pa.uint32())]),
        pa.chunked_array([pa.array([ip.packed if ip.version == 6 else bytes(16) for ip in ips], pa.binary(16))]),
    )
    assert found.type == pa.utf8()
    texts: list[str] = found.to_pylist()
    return texts


def test_the_first_subdivision_else_the_country(file: Path) -> None:
    geography = Geography(file)
    for _ in range(2):  # the second time out of what is remembered
        assert provinces(geography, list(PLACES) * 3) == list(PLACES.values()) * 3
    assert provinces(geography, []) == []


def test_addresses_that_are_not_public_are_nowhere(file: Path) -> None:
    assert provinces(Geography(file), list(NOT_PUBLIC)) == [""] * len(NOT_PUBLIC)


@pytest.mark.parametrize(
    ("language", "texts"),
    [("zh-CN", ["英格兰", "瑞典", "Norway", "California"]), ("xx", ["England", "Sweden", "Norway", "California"])],
)
def test_a_language_and_english_where_it_lacks(file: Path, language: str, texts: list[str]) -> None:
    asked = ["81.2.69.1", "89.160.20.113", "2a02:cf40::1", "5.5.5.5"]
    assert provinces(Geography(file, language), asked) == texts


def test_a_column_may_come_in_pieces(file: Path) -> None:
    numbers = [int(ipaddress.ip_address(address)) for address in ("81.2.69.1", "1.1.1.1", "89.160.20.113")]
    pieces = pa.chunked_array([pa.array(numbers[:1], pa.uint32()), pa.array(numbers[1:], pa.uint32())])
    zeros = pa.chunked_array([pa.array([bytes(16)] * 3, pa.binary(16))])
    ones = pa.chunked_array([pa.array([1, 1, 1], pa.uint8())])
    assert Geography(file).provinces(ones, pieces, zeros).to_pylist() == ["England", "", "Sweden"]


def test_a_database_of_ipv4_alone(tmp_path: Path) -> None:
    geography = Geography(write_geography(tmp_path / "four.mmdb", 4))
    assert provinces(geography, ["81.2.69.1", "2a02:cf40::1"]) == ["England", ""]


def test_what_happens_to_the_file_later_changes_nothing(file: Path) -> None:
    geography = Geography(file)
    file.write_bytes(b"")
    assert provinces(geography, ["81.2.69.1", "2a02:cf40::1"]) == ["England", "Norway"]


def test_a_damaged_record_is_told_once_and_gives_no_text(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = file.read_bytes()
    assert content.count(b"\x47England") == 1
    file.write_bytes(content.replace(b"\x47England", b"\x47\xff\xff\xffland"))
    geography = Geography(file)
    with caplog.at_level(logging.WARNING):
        assert provinces(geography, ["81.2.69.1", "81.2.69.2", "89.160.20.113"]) == ["", "", "Sweden"]
    assert [record.message.split(",")[0] for record in caplog.records] == [f"The geography file {file} is damaged"]


@pytest.mark.parametrize("content", [b"", b"GIF89a" * 50, b"\xab\xcd\xefMaxMind.com", None])
def test_a_file_of_another_format(file: Path, content: bytes | None) -> None:
    file.write_bytes(file.read_bytes()[:-200] if content is None else content)
    with pytest.raises(GeographyError, match=r"places\.mmdb is not in the MaxMind DB format"):
        Geography(file)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(GeographyError, match=r"none\.mmdb cannot be read: No such file"):
        Geography(tmp_path / "none.mmdb")
    with pytest.raises(GeographyError, match="cannot be read: Is a directory"):
        Geography(tmp_path)
