"""What a SELECT names: its table and its columns, as they are written."""

from dataclasses import dataclass

from sqlglot import exp

from deepflow.query.errors import QueryError
from deepflow.query.expressions import Expression, name_of
from deepflow.query.functions import BY_LOWER_NAME


@dataclass(frozen=True)
class Item:
    """One column of a SELECT."""

    name: str
    asked: str
    """The expression as the query wrote it."""
    node: Expression


def table_name(select: exp.Select) -> str:
    """The table after FROM, with its database when it is written.

    Raises:
        QueryError: there is none, or more than the name of one table.
    """
    origin = select.args.get("from_")
    if origin is None:
        raise QueryError("The query names no table; write SELECT … FROM table.")
    target = origin.this
    if not isinstance(target, exp.Table) or not all(isinstance(part, exp.Identifier) for part in target.parts):
        raise QueryError("FROM takes the name of a table; sub-queries and table functions are not allowed.")
    if any(value for key, value in target.args.items() if key not in {"this", "db", "catalog"}):
        raise QueryError("FROM takes the name of one table, without an alias or options.")
    return ".".join(part.name for part in target.parts)


def item_of(node: Expression) -> Item:
    """One element after SELECT."""
    body = node.this if isinstance(node, exp.Alias) else node
    if isinstance(body, exp.Star):
        return Item("*", "*", body)
    asked = written(body)
    name = node.alias if isinstance(node, exp.Alias) else asked
    return Item(name, asked, body)


def written(node: Expression) -> str:
    """The expression as the query wrote it, without back quotes."""
    return name_of(node) or node.sql(dialect="mysql", normalize_functions=False).replace("`", "")


def has_aggregate(node: Expression) -> bool:
    """Whether a function over groups is in the expression."""
    return any(str(one.this).lower() in BY_LOWER_NAME for one in node.find_all(exp.Anonymous))
