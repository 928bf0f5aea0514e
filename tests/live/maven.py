"""Programs that only Maven has: `java/NAME.xml` lists what a program needs."""

from __future__ import annotations

from pathlib import Path

from tests.live.fetched import fetched
from tests.live.observed import need

SECONDS_TO_FETCH = 1200


def class_path(name: str) -> str:
    """The class path of `java/NAME.xml`; skips, saying why, when it cannot be had."""
    need("java", "mvn")
    recipe = Path(__file__).parent / f"java/{name}.xml"

    def command(folder: Path) -> list[str]:
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        return ["mvn", "-q", "-B", "-f", str(recipe), *goal]

    return f"{fetched('mvn', name, recipe.read_text(), command, SECONDS_TO_FETCH)}/*"
