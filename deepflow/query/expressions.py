"""ClickHouse SQL as trees, so that sqlglot's generator and nothing else writes names and literals."""

from collections.abc import Sequence
from functools import lru_cache

from sqlglot import exp, parse_one

Expression = exp.Expr


def call(name: str, *arguments: Expression) -> Expression:
    """`name(arguments)`."""
    return exp.Anonymous(this=name, expressions=[argument.copy() for argument in arguments])


def aggregate_call(name: str, parameters: Sequence[Expression], *arguments: Expression) -> Expression:
    """`name(parameters)(arguments)`, without parameters `name(arguments)`."""
    if not parameters:
        return call(name, *arguments)
    return exp.ParameterizedAgg(
        this=exp.Identifier(this=name, quoted=False),
        expressions=[parameter.copy() for parameter in parameters],
        params=[argument.copy() for argument in arguments],
    )


def column(name: str) -> Expression:
    """A stored column or an alias."""
    return exp.Column(this=exp.Identifier(this=name, quoted=True))


def number(value: float) -> Expression:
    """A number literal; negative ones are in parentheses, so that they stand after any operator."""
    literal = exp.Literal.number(value if isinstance(value, int) else repr(value))
    return exp.Paren(this=literal) if isinstance(literal, exp.Neg) else literal


def text(value: str) -> Expression:
    """A string literal."""
    return exp.Literal.string(value)


def null() -> Expression:
    """NULL."""
    return exp.Null()


def either(condition: Expression, yes: Expression, no: Expression) -> Expression:
    """`if(condition, yes, no)`."""
    return call("if", condition, yes, no)


def compare(operator: str, left: Expression, right: Expression) -> Expression:
    """`left operator right` for `=`, `<`, `<=`, `>`, `>=`."""
    return _COMPARISONS[operator](this=left.copy(), expression=right.copy())


_COMPARISONS: dict[str, type[exp.Binary]] = {"=": exp.EQ, "<": exp.LT, "<=": exp.LTE, ">": exp.GT, ">=": exp.GTE}


def is_in(left: Expression, values: Sequence[Expression] | exp.Select) -> Expression:
    """`left IN (…)` for a list or a sub-query."""
    if isinstance(values, exp.Select):
        return exp.In(this=left.copy(), query=exp.Subquery(this=values))
    return exp.In(this=left.copy(), expressions=[value.copy() for value in values])


def all_of(conditions: Sequence[Expression]) -> Expression:
    """Conditions joined by AND, each in parentheses when it is more than one."""
    return _joined(exp.And, conditions)


def any_of(conditions: Sequence[Expression]) -> Expression:
    """Conditions joined by OR."""
    return _joined(exp.Or, conditions)


def _joined(kind: type[exp.Connector], conditions: Sequence[Expression]) -> Expression:
    if len(conditions) == 1:
        return conditions[0].copy()
    wrapped = [exp.Paren(this=part.copy()) if isinstance(part, exp.Connector) else part.copy() for part in conditions]
    tree: Expression = wrapped[0]
    for part in wrapped[1:]:
        tree = kind(this=tree, expression=part)
    return tree


def negated(condition: Expression) -> Expression:
    """`NOT (condition)`."""
    return exp.Not(this=exp.Paren(this=condition.copy()))


def arithmetic(kind: type[exp.Binary], left: Expression, right: Expression) -> Expression:
    """`left kind right` with the operands kept together; division by zero gives NULL."""
    if kind is exp.Div:
        return call("divide", left, call("nullIf", right, number(0)))
    return exp.Paren(this=kind(this=left.copy(), expression=right.copy()))


@lru_cache(maxsize=1024)
def _declared(sql: str) -> Expression:
    return parse_one(sql, dialect="clickhouse")


def declared(sql: str) -> Expression:
    """The `expr` of a tag or metric in `schema/*.yaml`, which the project itself wrote."""
    tree = _declared(sql).copy()
    return tree if isinstance(tree, exp.Column | exp.Literal | exp.Func) else exp.Paren(this=tree)


def table(database: str, name: str) -> exp.Table:
    """`database`.`name`."""
    return exp.Table(this=exp.Identifier(this=name, quoted=True), db=exp.Identifier(this=database, quoted=True))


def sql_of(tree: Expression) -> str:
    """ClickHouse SQL on one line."""
    return tree.sql(dialect="clickhouse")


def name_of(node: Expression) -> str | None:
    """The name that a column reference writes, dots included; None for anything else."""
    if not isinstance(node, exp.Column) or isinstance(node.this, exp.Star):
        return None
    return ".".join(part.name for part in node.parts)
