"""The examples of docs/query.md are answered."""

from pathlib import Path

from tests.query.conftest import Ask

PAGE = Path(__file__).parents[2] / "docs" / "query.md"


def test_examples_of_the_page(ask: Ask) -> None:
    blocks = PAGE.read_text().split("```sql\n")[1:]
    examples = [line for block in blocks for line in block.split("```")[0].splitlines() if line]
    assert len(examples) >= 12
    for sql in examples:
        assert ask(sql, "").columns
