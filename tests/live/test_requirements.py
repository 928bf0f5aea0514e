"""What tests/live needs is pinned."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def names(file: Path) -> set[str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)", file.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in found}


def test_every_package_has_a_hash() -> None:
    asked, pinned = names(ROOT / "requirements/live.in"), names(ROOT / "requirements/live.txt")
    assert asked <= pinned, f"run `make locks`: {asked - pinned}"
