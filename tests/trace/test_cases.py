"""Rows in, tree out: one JSON file a situation.

`rows` are records of l7_flow_log over `defaults`; `repeat` makes more of them with ids, times and numbers counted up.
`edges` says for each row but the roots its parent and the rule.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from deepflow.trace import Row, Trace, assemble, forest

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))
BEGIN_US = 1_700_000_000_000_000


def rows_of(case: dict[str, Any]) -> list[Row]:
    repeat = case.get("repeat", {"times": 1, "step": {}})
    rows = []
    for number in range(repeat["times"]):
        for given in case["rows"]:
            record = case.get("defaults", {}) | given
            for name, step in repeat["step"].items():
                record[name] = record.get(name, 0) + number * step
            record["start_time"] += BEGIN_US
            record["end_time"] += BEGIN_US
            rows.append(Row.of(record))
    return rows


def edges_of(traces: list[Trace]) -> dict[str, list[Any]]:
    spans = [span for trace in traces for span in trace.spans if span.cause and span.parent]
    return {str(span.row.id): [span.parent.row.id, span.cause.rule] for span in spans if span.parent and span.cause}


def test_there_are_cases() -> None:
    assert len(CASES) >= 12


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_case(path: Path, backwards: bool) -> None:
    case = json.loads(path.read_text())
    rows = rows_of(case)
    if backwards:
        rows.reverse()
    traces = forest(rows)
    edges, repeated = edges_of(traces), case.get("repeat")
    if repeated:
        assert len(traces) == repeated["times"] * case["trees"]
        edges = {child: edge for child, edge in edges.items() if int(child) < repeated["step"]["_id"]}
    assert edges == case["edges"]
    spans = {span.row.id: span for trace in traces for span in trace.spans}
    first = [span for span in spans.values() if not repeated or span.row.id < repeated["step"]["_id"]]
    assert sorted(span.row.id for span in first if span.outside_parent) == case.get("outside_parent", [])
    merged = {str(span.row.id): list(span.row.ids) for span in first if len(span.row.ids) > 1}
    assert merged == case.get("merged", {})
    for child, reason in case.get("reasons", {}).items():
        cause = spans[int(child)].cause
        assert cause is not None and cause.reason == reason
    for row_id, times in case.get("times", {}).items():
        span = spans[int(row_id)]
        assert [span.start_us - BEGIN_US, span.end_us - BEGIN_US] == times
    for row in rows[:: 333 if repeated else 1]:
        trace = assemble(rows, row.id)
        ids = {row_id for span in trace.spans for row_id in span.row.ids}
        assert row.id in ids
        same = next(tree for tree in traces if tree.root.row.id == trace.root.row.id)
        assert [span.row.ids for span in trace.spans] == [span.row.ids for span in same.spans]
        if "corrections" in case and not case["corrections"].keys().isdisjoint(map(str, trace.clock_corrections)):
            assert {str(agent): us for agent, us in trace.clock_corrections.items() if us} == case["corrections"]
