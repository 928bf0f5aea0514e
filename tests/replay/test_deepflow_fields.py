"""Every field that DeepFlow's own parser tests expect, against the rows that a replay prints.

What differs stands in ``ledger/FOLDER.yaml`` with its cause: ``{file: {what: cause}}``. `what` is a column ("endpoint",
in any row), a column of one row ("line 3 endpoint", the line of the row's first message), a row ("line 3": expected
and not found), "more rows" (found and not expected) or "other protocols". An entry that stops differing must leave
the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
import yaml

from deepflow import _core
from tests.replay.expected import NULLABLE, Row, rows
from tests.replay.families import FAMILIES, Family
from tests.replay.replayed import replayed

LEDGER = Path(__file__).parent / "ledger"
#: A capture that is not named like its expectation.
CAPTURES = {"dubbo_hessian": "dubbo_hessian2"}
REGISTRY = {protocol["id"]: protocol["name"] for protocol in json.loads(_core.protocols())}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from tests.conftest import fixtures

    folder = fixtures() / "deepflow/flow_generator"
    files = sorted(file for file in folder.glob("*/*.expected.jsonl") if file.parent.name in FAMILIES)
    metafunc.parametrize("file", files, ids=lambda file: f"{file.parent.name}/{file.name.split('.')[0]}")


def identity(row: Row) -> str:
    return f"{row['type']} {row.get('request_type', '')} {row.get('request_id')}"


def differences(expected: list[Row], found: list[Row], family: Family) -> Iterator[tuple[str, str]]:
    """(what, how) of everything that differs."""
    pairs: list[tuple[Row | None, Row | None]] = []
    if len(expected) == len(found):
        pairs.extend(zip(expected, found, strict=True))
    else:
        matcher = SequenceMatcher(
            None, [identity(row) for row in expected], [identity(row) for row in found], autojunk=False
        )
        for kind, left, left_end, right, right_end in matcher.get_opcodes():
            if kind == "equal" or left_end - left == right_end - right:
                pairs.extend(zip(expected[left:left_end], found[right:right_end], strict=True))
            else:
                pairs.extend((row, None) for row in expected[left:left_end])
                pairs.extend((None, row) for row in found[right:right_end])
    for want, have in pairs:
        if want is None:
            assert have is not None
            yield "more rows", f"{identity(have)} {have['request_resource']!r}"
        elif have is None:
            yield f"line {want['line']}", f"no row for {want}"
        else:
            yield from columns(want, have, family)


def columns(want: Row, have: Row, family: Family) -> Iterator[tuple[str, str]]:
    for name, value in want.items():
        if name == "line":
            continue
        alike = family.alike.get(name, lambda value: value)
        empty = None if name in NULLABLE else ""
        left = alike(empty if value is None else value)
        right = alike(empty if have[name] is None else have[name])
        if left != right:
            yield f"line {want['line']} {name}", f"expected {left!r}, found {right!r}"


def is_listed(what: str, listed: dict[str, str], met: set[str]) -> bool:
    """Does an entry speak of this difference? Notes which."""
    names = {what, what.split(" ")[2]} if what.startswith("line ") and what.count(" ") == 2 else {what}
    met |= names & listed.keys()
    return bool(names & listed.keys())


def test_fields_agree(file: Path) -> None:
    folder, stem = file.parent.name, file.name.split(".")[0]
    family, expected = FAMILIES[folder], rows(file)
    missing = [protocol for protocol in family.protocols if protocol not in REGISTRY]
    if len(missing) == len(family.protocols):
        pytest.skip(f"{folder}: the registry has no protocol {missing[0]} yet")
    found: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for row in replayed(file.with_name(f"{CAPTURES.get(stem, stem)}.pcap"), family.settings):
        (found if row["l7_protocol"] in family.protocols else others).append(row)
    entries: dict[str, Any] = {}
    if (LEDGER / f"{folder}.yaml").exists():
        entries = yaml.safe_load((LEDGER / f"{folder}.yaml").read_text()) or {}
    listed: dict[str, str] = entries.get(stem, {})
    met: set[str] = set()
    wrong = []
    all_differences = list(differences(expected, found, family))
    if others:
        all_differences.append(("other protocols", ", ".join({row["biz_protocol"] for row in others})))
    for what, how in all_differences:
        if not is_listed(what, listed, met):
            wrong.append(f"{what}: {how}")
    wrong += [f"{what}: agrees now and must leave the ledger" for what in listed.keys() - met]
    if wrong:
        pytest.fail("\n".join([f"{folder}/{stem}", *wrong]), pytrace=False)


def test_ledger_names_files_that_exist(file: Path) -> None:
    ledger = LEDGER / f"{file.parent.name}.yaml"
    if ledger.exists():
        stems = {other.name.split(".")[0] for other in file.parent.glob("*.expected.jsonl")}
        assert (yaml.safe_load(ledger.read_text()) or {}).keys() <= stems
