"""DeepFlow SQL as text: MySQL's grammar without its functions, read by sqlglot."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.dialects.mysql import MySQL
from sqlglot.errors import SqlglotError
from sqlglot.parsers.mysql import MySQLParser
from sqlglot.tokenizer_core import Token, TokenType

from deepflow.query.errors import QueryError, shown

MAX_LENGTH = 32_768
"""Characters of a query."""
_MAX_DEPTH = 100
_QUERY_PARTS = {
    "expressions",
    "from_",
    "where",
    "group",
    "having",
    "order",
    "limit",
    "offset",
    "kind",
    "hint",
    "distinct",
    "operation_modifiers",
}


class DeepFlow(MySQL):
    """Every call is a plain `name(arguments)`: which functions exist is for the catalogue to say."""

    class Parser(MySQLParser):
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {}
        NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}
        NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {}


@dataclass(frozen=True)
class Statement:
    """A SELECT as parsed, and the number of series that SLIMIT allows."""

    select: exp.Select
    slimit: int | None


def tokens_of(sql: str) -> list[Token]:
    """The words of one statement, without a closing semicolon.

    Raises:
        QueryError: too long, empty, more than one statement, a comment, or characters that make no word.
    """
    if len(sql) > MAX_LENGTH:
        raise QueryError(f"The query has {len(sql)} characters, at most {MAX_LENGTH} are read.")
    try:
        tokens = list(DeepFlow().tokenize(sql))
    except (SqlglotError, ValueError, RecursionError):
        raise QueryError(
            "The query cannot be read: a quote or a name is not closed, or a character is out of place."
        ) from None
    if any(token.comments for token in tokens):
        raise QueryError("Comments are not allowed in a query; leave out --, # and /* */.")
    while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise QueryError("The query is empty.")
    if any(token.token_type == TokenType.SEMICOLON for token in tokens):
        raise QueryError("Only one statement is allowed in a query.")
    _check_depth(tokens)
    return tokens


def _check_depth(tokens: list[Token]) -> None:
    depth = 0
    for token in tokens:
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
        if depth > _MAX_DEPTH:
            raise QueryError(f"The query nests parentheses deeper than {_MAX_DEPTH}.")


def parse(sql: str, tokens: list[Token]) -> Statement:
    """Reads a SELECT.

    Raises:
        QueryError: no SELECT, not parseable, or with a part that the dialect does not have.
    """
    tokens, slimit = _cut_slimit(tokens)
    try:
        parsed = [tree for tree in DeepFlow().parser().parse(tokens, sql) if tree is not None]
    except SqlglotError as error:
        raise QueryError(_located(error)) from None
    except (ValueError, AttributeError, TypeError, IndexError, KeyError):
        # sqlglot's parser trips over some broken texts instead of refusing them; for the reader it is the same.
        raise QueryError("The query is not valid SQL.") from None
    except RecursionError:
        raise QueryError("The query is nested too deeply.") from None
    if len(parsed) != 1 or not isinstance(parsed[0], exp.Select):
        raise QueryError("Only a single SELECT or SHOW statement is answered.")
    select = parsed[0]
    for part, value in select.args.items():
        if value and part not in _QUERY_PARTS:
            raise QueryError(f"A query cannot have {_PART_NAMES.get(part, part.strip('_').upper())} here.")
    if (
        select.args.get("distinct")
        or select.args.get("hint")
        or select.args.get("kind")
        or select.args.get("operation_modifiers")
    ):
        raise QueryError("SELECT takes no modifier such as DISTINCT; use GROUP BY.")
    return Statement(select, slimit)


_PART_NAMES = {
    "with_": "WITH",
    "joins": "a second table or JOIN",
    "laterals": "LATERAL",
    "locks": "FOR UPDATE",
    "into": "INTO",
}


def _cut_slimit(tokens: list[Token]) -> tuple[list[Token], int | None]:
    """SLIMIT is no word of any other dialect, so it is taken out before the parser sees it."""
    for index, token in enumerate(tokens[:-1]):
        if token.token_type == TokenType.VAR and token.text.upper() == "SLIMIT":
            number = tokens[index + 1]
            if number.token_type != TokenType.NUMBER or not number.text.isdigit() or not 0 < len(number.text) < 7:
                raise QueryError("SLIMIT takes a whole number of series, for example SLIMIT 5.")
            return tokens[:index] + tokens[index + 2 :], int(number.text)
    return tokens, None


def _located(error: SqlglotError) -> str:
    """`The query is not valid SQL near "x" (line 1, column 7).`"""
    details = getattr(error, "errors", None)
    if not details:
        return "The query is not valid SQL."
    first = details[0]
    near = shown(str(first.get("highlight") or ""))
    return f'The query is not valid SQL near "{near}" (line {first.get("line")}, column {first.get("col")}).'
