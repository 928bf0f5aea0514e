"""What a reader of the data is told when a query cannot be answered."""

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN = 80


class QueryError(Exception):
    """The query is wrong or refused; the message is one sentence for the person who wrote it (HTTP 400)."""


def shown(name: str) -> str:
    """The name as an error message quotes it: on one line and not longer than a line."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return printable if len(printable) <= _SHOWN else printable[:_SHOWN] + "…"


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> QueryError:
    """`Unknown tag "x"; did you mean "y"?`"""
    # Case is folded for the comparison only: the suggestion is spelled as the catalogue spells it.
    spelled = {candidate.lower(): candidate for candidate in sorted(known)}
    near = get_close_matches(name[:_SHOWN].lower(), list(spelled), n=1, cutoff=0.6)
    hint = f'; did you mean "{spelled[near[0]]}"?' if near else "."
    return QueryError(f'Unknown {what} "{shown(name)}"{where}{hint}')
