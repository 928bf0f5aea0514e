"""SHOW: what there is to ask for. The catalogue answers, except for the values of tags."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

from deepflow.query.catalogue import SYSTEM, Catalogue, MetricEntry, TagEntry, database_of, databases, visible
from deepflow.query.comparisons import number_filter, text_filter, wildcard
from deepflow.query.constants import constant, numeric
from deepflow.query.dialect import parse
from deepflow.query.errors import QueryError, shown, unknown
from deepflow.query.expressions import Expression, all_of, any_of, call, column, name_of, number, sql_of, table, text
from deepflow.query.filters import OPERATORS, FilterCompiler
from deepflow.query.functions import FUNCTIONS
from deepflow.query.result import Output, Result, answer
from deepflow.query.source import find_table
from deepflow.query.tags import AUTO_TYPES, resolve
from deepflow.schema import Schema

Read = Callable[[str], pa.Table]
_LIMIT = 10_000
_LONGEST_NAME = 24
"""Words in which the name of a tag ends; `attribute.a.b` are five."""
_TAG_COLUMNS = (
    "name",
    "client_name",
    "server_name",
    "display_name",
    "type",
    "enum_file",
    "category",
    "operators",
    "permissions",
    "description",
    "related_tag",
    "deprecated",
    "not_supported_operators",
    "table",
)
_METRIC_COLUMNS = (
    "name",
    "is_agg",
    "display_name",
    "unit",
    "type",
    "category",
    "operators",
    "permissions",
    "table",
    "description",
)
_FUNCTION_COLUMNS = ("name", "type", "support_metric_types", "unit", "additional_param_count", "description")
_COMPARE = ["=", "!=", "<", "<=", ">", ">=", "IN", "NOT IN"]
_TEXT = ["=", "!=", "IN", "NOT IN", "LIKE", "NOT LIKE", "REGEXP", "NOT REGEXP"]
_DICTIONARIES = {"host": "host_map", "gprocess": "gprocess_map", "agent": "vtap_map"}


@dataclass(frozen=True)
class Shown:
    """An answer: rows that are known, or SQL that finds them."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]] = ()
    sql: str = ""

    def result(self, read: Read) -> Result:
        """The answer itself."""
        if not self.sql:
            return Result(list(self.columns), [list(row) for row in self.rows])
        return answer(read(self.sql), [Output(name, name, "tag", "") for name in self.columns], None)


def is_show(tokens: Sequence[Token]) -> bool:
    """Whether the statement is a SHOW."""
    return tokens[0].text.upper() == "SHOW"


def show(schema: Schema, tokens: list[Token], db: str) -> Shown:
    """Answers a SHOW.

    Raises:
        QueryError: not a form of SHOW that exists, or an unknown name in it.
    """
    words = [token.text for token in tokens]
    lower = [word.lower() for word in words]
    what = lower[1] if len(lower) > 1 else ""
    if what == "tag" and "values" in lower[3:_LONGEST_NAME]:
        at = lower.index("values", 3)
        return _tag_values(schema, "".join(words[2:at]), _clauses(tokens[at + 1 :]), db)
    if what == "enum" and len(words) > 3 and lower[3] == "values":
        _nothing_after(tokens, 4)
        return _enum_values(schema, words[2])
    if what == "metrics" and lower[2:3] == ["functions"]:
        _nothing_after(tokens, 3)
        return _functions()
    rule = {
        "databases": _databases,
        "tables": _tables,
        "tags": _tags,
        "metrics": _metrics,
        "language": _language,
        "all_enum_tags": _enums,
    }.get(what)
    if rule is None:
        raise QueryError(
            "SHOW knows databases, tables, tags, metrics, metrics functions, tag X values from t, "
            "enum X values, all_enum_tags and language."
        )
    return rule(schema, _clauses(tokens[2:]), db)


@dataclass(frozen=True)
class _Clauses:
    table: str
    where: Expression | None
    order: Sequence[exp.Ordered]
    limit: int
    offset: int

    def page(self, rows: list[tuple[Any, ...]], columns: tuple[str, ...]) -> Shown:
        """Rows that the conditions on `name` and other columns leave."""
        kept = [row for row in rows if self.where is None or _holds(self.where, dict(zip(columns, row, strict=True)))]
        return Shown(columns, kept[self.offset : self.offset + self.limit])


def _nothing_after(tokens: Sequence[Token], count: int) -> None:
    if len(tokens) > count:
        raise QueryError(f'SHOW does not understand "{shown(tokens[count].text)}" here.')


def _clauses(tokens: list[Token]) -> _Clauses:
    """`[from t | on db] [where …] [order by …] [limit n] [offset m]`, read as the tail of a SELECT."""
    name = ""
    if tokens and tokens[0].text.lower() in {"from", "on"}:
        cut = 1
        while cut < len(tokens) and tokens[cut].text.lower() not in {"where", "order by", "limit", "offset"}:
            cut += 1
        name = "".join(token.text for token in tokens[1:cut]) if tokens[0].text.lower() == "from" else ""
        if cut == 1 or cut > 6:
            raise QueryError("FROM in a SHOW takes the name of one table.")
        tokens = tokens[cut:]
    head = [
        Token(TokenType.SELECT, "SELECT"),
        Token(TokenType.NUMBER, "1"),
        Token(TokenType.FROM, "FROM"),
        Token(TokenType.VAR, "t"),
    ]
    select = parse("", [*head, *tokens]).select
    origin = select.args["from_"].this
    if not isinstance(origin, exp.Table) or origin.alias or any(select.args.get(part) for part in ("group", "having")):
        raise QueryError("SHOW takes FROM, WHERE, ORDER BY, LIMIT and OFFSET.")
    where, order, limit, offset = (select.args.get(part) for part in ("where", "order", "limit", "offset"))
    numbers = [
        int(numeric(part.expression)) if part is not None else default
        for part, default in ((limit, _LIMIT), (offset, 0))
    ]
    if not 0 <= numbers[0] <= _LIMIT or not 0 <= numbers[1] <= 10**9:
        raise QueryError(f"LIMIT of a SHOW is at most {_LIMIT}.")
    return _Clauses(
        name, where.this if where is not None else None, order.expressions if order is not None else (), *numbers
    )


def _holds(node: Expression, row: dict[str, Any]) -> bool:  # noqa: PLR0911  a table of cases
    """A condition on the catalogue's own rows: =, !=, IN and LIKE with names joined by AND, OR and NOT."""
    match node:
        case exp.Paren():
            return _holds(node.this, row)
        case exp.And():
            return _holds(node.this, row) and _holds(node.expression, row)
        case exp.Or():
            return _holds(node.this, row) or _holds(node.expression, row)
        case exp.Not():
            return not _holds(node.this, row)
    name = name_of(node.this) if isinstance(node, exp.EQ | exp.NEQ | exp.In | exp.Like) else None
    if name is None:
        raise QueryError("WHERE of this SHOW compares names with =, !=, IN and LIKE.")
    if name not in row:
        raise unknown("column", name, row)
    cell = str(row[name])
    if isinstance(node, exp.In):
        return any(cell == str(constant(value)) for value in node.expressions)
    wanted = str(constant(node.expression))
    if isinstance(node, exp.Like):
        return _matches(cell.lower(), wildcard(wanted).lower().split("%")) != bool(node.args.get("negate"))
    return (cell == wanted) == isinstance(node, exp.EQ)


def _matches(cell: str, parts: list[str]) -> bool:
    """Whether `cell` consists of the parts with any text between them."""
    if len(parts) == 1:
        return cell == parts[0]
    if not cell.startswith(parts[0]) or not cell.endswith(parts[-1]) or len(cell) < len(parts[0]) + len(parts[-1]):
        return False
    at, end = len(parts[0]), len(cell) - len(parts[-1])
    for part in parts[1:-1]:
        found = cell.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _databases(schema: Schema, clauses: _Clauses, db: str) -> Shown:
    return clauses.page([(name,) for name in databases(schema)], ("name",))


def _tables(schema: Schema, clauses: _Clauses, db: str) -> Shown:
    database = database_of(schema, db)
    if database == SYSTEM and clauses.where is None:
        names = exp.select(_as(column("virtual_table_name"), "name"), _as(call("emptyArrayString"), "datasources"))
        names = (
            names.from_(table(SYSTEM, SYSTEM)).group_by(column("name")).order_by(column("name")).limit(clauses.limit)
        )
        return Shown(("name", "datasources"), sql=sql_of(names))
    rows = [
        (one.name, [name for name in one.precisions if name])
        for one in visible(schema)
        if database in {"", one.database}
    ]
    return clauses.page(rows, ("name", "datasources"))


def _catalogues(schema: Schema, clauses: _Clauses, db: str) -> list[Catalogue]:
    if clauses.table:
        return [find_table(schema, clauses.table, db)[0]]
    database = database_of(schema, db)
    return [Catalogue(one, schema) for one in visible(schema) if database in {"", one.database}]


def _tags(schema: Schema, clauses: _Clauses, db: str) -> Shown:
    rows: list[tuple[Any, ...]] = []
    for catalogue in _catalogues(schema, clauses, db):
        seen: set[str] = set()
        for entry in catalogue.tags.values():
            if entry.listed and (entry.side is None or entry.base not in seen):
                seen.add(entry.base if entry.side is not None else entry.name)
                rows.append(_tag_row(catalogue, entry))
    return clauses.page(rows, _TAG_COLUMNS)


def _tag_row(catalogue: Catalogue, entry: TagEntry) -> tuple[Any, ...]:
    two = entry.side is not None
    name = entry.base if two else entry.name
    client, server = (f"{name}_0", f"{name}_1") if two else (name, name)
    operators = _COMPARE if entry.kind in {"int", "id", "time"} else [*_COMPARE, *_TEXT[4:]]
    return (
        name,
        client,
        server,
        name,
        entry.kind,
        entry.enum or "",
        entry.category,
        operators,
        [True, True, True],
        entry.description,
        "",
        False,
        [],
        catalogue.table.name,
    )


def _metrics(schema: Schema, clauses: _Clauses, db: str) -> Shown:
    rows = [_metric_row(one, metric) for one in _catalogues(schema, clauses, db) for metric in one.metrics.values()]
    return clauses.page(rows, _METRIC_COLUMNS)


def _metric_row(catalogue: Catalogue, metric: MetricEntry) -> tuple[Any, ...]:
    return (
        metric.name,
        False,
        metric.name,
        metric.unit,
        metric.kind,
        metric.category,
        _COMPARE,
        [True, True, True],
        catalogue.table.name,
        metric.description,
    )


def _functions() -> Shown:
    rows = [
        (one.name, one.kind, sorted(one.metric_types), one.unit, one.arguments, one.description)
        for one in FUNCTIONS.values()
    ]
    return Shown(_FUNCTION_COLUMNS, rows)


def _language(schema: Schema, clauses: _Clauses, db: str) -> Shown:
    return Shown(("language",), [("en",)])


def _enums(schema: Schema, clauses: _Clauses, db: str) -> Shown:
    rows = [(name, str(value), text) for name, values in schema.enums.items() for value, text in values.items()]
    return clauses.page(rows, ("name", "value", "display_name"))


def _enum_values(schema: Schema, name: str) -> Shown:
    if name not in schema.enums:
        raise unknown("enumeration", name, schema.enums)
    return Shown(("value", "display_name"), [(value, text) for value, text in schema.enums[name].items()])


def _tag_values(schema: Schema, name: str, clauses: _Clauses, db: str) -> Shown:
    """`value`, `display_name` of a tag: resources by dictionary, enumerations by catalogue, others from the rows."""
    if not clauses.table:
        raise QueryError("SHOW tag X values needs FROM table.")
    catalogue, suffix, measurement = find_table(schema, clauses.table, db)
    columns = ("value", "display_name")
    entry = catalogue.tag(name) or next(iter(catalogue.sides(name)), None)
    if entry is None:
        raise catalogue.missing(name)
    if entry.enum is not None:
        rows = list(schema.enums[entry.enum].items())
        return clauses.page(rows, columns)
    if entry.kind == "resource" and entry.type is None:
        return Shown(columns, sql=_resource_values(entry, clauses))
    tag = resolve(catalogue, entry.name if catalogue.tag(name) is None else name)
    if tag is None or len(tag.keys) != 1:
        raise QueryError(f'Values of "{shown(name)}" cannot be listed.')
    value = tag.show(tag.keys)
    conditions = [call("isNotNull", value), tag.exists]
    if measurement:
        conditions.append(exp.EQ(this=column("virtual_table_name"), expression=text(measurement)))
    if clauses.where is not None:
        aliases = {alias: exp.column(tag.name, quoted=True) for alias in columns}
        conditions.append(FilterCompiler(catalogue, None, aliases).condition(clauses.where))
    stored = catalogue.table.stored_name(suffix or list(catalogue.table.precisions)[-1])
    query = exp.select(_as(value, "value"), _as(call("toString", value), "display_name"))
    query = (
        query.from_(table(catalogue.table.database, stored))
        .where(all_of(conditions))
        .group_by(column("value"), column("display_name"))
    )
    query = query.order_by(
        *(_order(clauses) or [exp.Ordered(this=call("count"), desc=True), exp.Ordered(this=column("value"))])
    )
    return Shown(columns, sql=sql_of(query.limit(clauses.limit).offset(clauses.offset)))


def _resource_values(entry: TagEntry, clauses: _Clauses) -> str:
    dictionary = _DICTIONARIES.get(entry.base)
    identity = column("id" if dictionary else "deviceid")
    query = exp.select(_as(identity, "value"), _as(column("name"), "display_name")).from_(
        table("flow_tag", dictionary or "device_map")
    )
    conditions: list[Expression] = []
    if not dictionary:
        kinds = [number(kind) for kind in AUTO_TYPES if entry.base == "auto_instance" or kind != 10]
        conditions.append(exp.In(this=column("devicetype"), expressions=kinds))
    if clauses.where is not None:
        conditions.append(_named(clauses.where, entry, identity))
    query = query.where(all_of(conditions)) if conditions else query
    query = query.order_by(*(_order(clauses) or [exp.Ordered(this=column("value"))]))
    return sql_of(query.limit(clauses.limit).offset(clauses.offset))


def _named(node: Expression, entry: TagEntry, identity: Expression) -> Expression:  # noqa: PLR0911  a table of cases
    """Conditions on a dictionary: `value` or `X_id` is the id, `display_name`, `name` or `X` the name."""
    match node:
        case exp.Paren():
            return exp.Paren(this=_named(node.this, entry, identity))
        case exp.And():
            return all_of([_named(node.this, entry, identity), _named(node.expression, entry, identity)])
        case exp.Or():
            return any_of([_named(node.this, entry, identity), _named(node.expression, entry, identity)])
        case exp.Not():
            return exp.Not(this=exp.Paren(this=_named(node.this, entry, identity)))
    name = name_of(node.this) if isinstance(node, exp.In | exp.Binary) else None
    ids = {"value", "id", f"{entry.base}_id", f"{entry.name}_id", f"{entry.base}_id_{entry.side}"}
    names = {"display_name", "name", entry.base, entry.name}
    if name is None or name not in ids | names:
        raise unknown("column", name or node.sql(), ids | names)
    condition = number_filter(name, identity) if name in ids else text_filter(column("name"))
    if isinstance(node, exp.In) and node.expressions and not node.args.get("query"):
        return exp.Paren(this=any_of([condition("=", constant(value)) for value in node.expressions]))
    operator = OPERATORS.get(type(node))
    if operator is None:
        raise QueryError(f'"{shown(node.sql())}" is not a condition that SHOW understands.')
    value = constant(node.expression)
    if node.args.get("negate"):
        return exp.Not(this=exp.Paren(this=condition(operator, value)))
    return exp.Not(this=exp.Paren(this=condition("=", value))) if operator == "!=" else condition(operator, value)


def _order(clauses: _Clauses) -> list[exp.Ordered]:
    ordered = []
    for node in clauses.order:
        name = name_of(node.this)
        if name not in {"value", "display_name"}:
            raise QueryError("ORDER BY of a SHOW takes value or display_name.")
        ordered.append(exp.Ordered(this=column(name or ""), desc=bool(node.args.get("desc")), nulls_first=False))
    return ordered


def _as(value: Expression, name: str) -> exp.Alias:
    return exp.Alias(this=value.copy(), alias=exp.Identifier(this=name, quoted=True))
