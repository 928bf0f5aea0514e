"""How a command ends when something is wrong."""

from __future__ import annotations

from typing import NoReturn

import typer


def fail(sentence: str, code: int = 1) -> NoReturn:
    """Print one sentence on standard error and end with a non-zero code."""
    typer.secho(sentence, err=True, fg="red" if code else None)
    raise typer.Exit(code)
