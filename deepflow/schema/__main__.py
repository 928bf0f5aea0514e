"""`python -m deepflow.schema docs`: writes docs/schema.md of the source tree."""

import sys
from pathlib import Path

from deepflow.schema.docs import reference
from deepflow.schema.reading import SchemaError, load

PAGE = Path(__file__).parents[2] / "docs" / "schema.md"


def main(arguments: list[str]) -> int:
    """Exit code of the command."""
    if arguments != ["docs"]:
        print("usage: python -m deepflow.schema docs", file=sys.stderr)
        return 2
    try:
        PAGE.write_text(reference(load()), encoding="utf-8")
    except (SchemaError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
