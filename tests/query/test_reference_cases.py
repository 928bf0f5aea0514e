"""The reference's own inputs: accepted or refused as there, or in the ledger with a cause."""

import json
from pathlib import Path

import pytest
import yaml

from deepflow.query import QueryError
from tests.query.conftest import Ask

LEDGER = yaml.safe_load((Path(__file__).parent / "ledger.yaml").read_text())


def test_cases_of_the_reference(ask: Ask, fixtures_dir: Path) -> None:
    cases = json.loads((fixtures_dir / "deepflow" / "querier" / "sql_cases.json").read_text())["cases"]
    causes = {index: cause for cause, indices in LEDGER.items() for index in indices}
    wrong: list[str] = []
    agreed = 0
    for index, case in enumerate(cases):
        try:
            ask(case["input"], case.get("db", "flow_log"), case.get("datasource"))
            refusal = ""
        except QueryError as error:
            refusal = str(error)
        agrees = bool(refusal) == bool(case.get("wantErr"))
        agreed += agrees
        if agrees == (index in causes):
            wrong.append(f"{index} {'agrees, remove it from the ledger' if agrees else refusal}: {case['input'][:100]}")
    assert not wrong, "\n".join(wrong)
    assert agreed >= 10


@pytest.mark.parametrize("cause", LEDGER)
def test_the_ledger_names_a_cause(cause: str) -> None:
    assert len(cause) > 15 and LEDGER[cause] == sorted(set(LEDGER[cause]))
