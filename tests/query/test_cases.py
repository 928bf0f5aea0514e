"""Golden translations: each file of `cases/` has a query, a line `-- becomes`, and the ClickHouse SQL.
The first line holds db and data precision.

To accept an intended change: DEEPFLOW_REWRITE=1 pytest tests/query/test_cases.py, and read the difference.
"""

import os
from pathlib import Path

import pytest

from deepflow.query import translate
from deepflow.schema import Schema

CASES = sorted((Path(__file__).parent / "cases").glob("*.sql"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_translation(schema: Schema, path: Path) -> None:
    head, _, body = path.read_text().partition("\n")
    sql, _, expected = body.partition("\n-- becomes\n")
    db, _, precision = head.removeprefix("-- ").partition(" ")
    found = translate(schema, sql.strip(), db, precision or None)
    if os.environ.get("DEEPFLOW_REWRITE"):
        path.write_text(f"{head}\n{sql}\n-- becomes\n{found}\n")
        return
    assert found == expected.strip()


def test_there_are_cases() -> None:
    assert len(CASES) >= 12
