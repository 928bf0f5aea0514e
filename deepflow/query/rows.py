"""Values of a row: tags, metrics, and the functions and arithmetic over them."""

from collections.abc import Callable

from sqlglot import exp

from deepflow.query.catalogue import Catalogue
from deepflow.query.constants import constant, is_constant, numeric
from deepflow.query.errors import QueryError, shown, unknown
from deepflow.query.expressions import Expression, arithmetic, call, either, name_of, number, text
from deepflow.query.functions import BY_LOWER_NAME, FUNCTIONS, MetricCompiler
from deepflow.query.tags import resolve

_TAG_FUNCTIONS = (
    "Enum",
    "node_type",
    "icon_id",
    "mask",
    "toString",
    "length",
    "newTag",
    "if",
    "toUnixTimestamp",
    "toUnixTimestamp64Micro",
)
_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div)


def call_name(node: Expression) -> str:
    """Name of a function call in lower case, "" for anything else."""
    return str(node.this).lower() if isinstance(node, exp.Anonymous) else ""


class RowCompiler:
    """Expressions over stored columns."""

    def __init__(self, catalogue: Catalogue, metrics: MetricCompiler) -> None:
        self._catalogue = catalogue
        self._metrics = metrics
        self.condition: Callable[[Expression], Expression] | None = None
        """How a condition is compiled, where one may stand."""

    def scalar(self, node: Expression) -> Expression:  # noqa: PLR0911  one return a kind of node
        """An expression over stored columns."""
        if isinstance(node, exp.Paren):
            return self.scalar(node.this)
        if is_constant(node):
            value = constant(node)
            return text(value) if isinstance(value, str) else number(value or 0)
        if isinstance(node, _ARITHMETIC):
            return arithmetic(type(node), self.scalar(node.this), self.scalar(node.expression))
        if isinstance(node, exp.Neg):
            return call("negate", self.scalar(node.this))
        if isinstance(node, exp.Anonymous):
            return self._row_function(node)
        name = name_of(node)
        if name is None:
            raise QueryError(f'"{shown(node.sql())}" is not something that can be selected.')
        if tag := resolve(self._catalogue, name):
            return tag.show(tag.keys)
        metric = self._catalogue.metric(name)
        if metric is None:
            raise self._catalogue.missing(name)
        return self._metrics.row_value(metric)

    def _row_function(self, node: exp.Anonymous) -> Expression:
        name, arguments = call_name(node), node.expressions
        if name in BY_LOWER_NAME:
            raise QueryError(f"{node.this} is an aggregate function; it can stand in SELECT, HAVING and ORDER BY.")
        if name == "time":
            raise QueryError("time() can stand in SELECT, GROUP BY and ORDER BY.")
        rule = _ROW_FUNCTIONS.get(name)
        if rule is None:
            raise unknown("function", str(node.this), [*FUNCTIONS, *_TAG_FUNCTIONS, "time", "exist", "now"])
        wanted, build = rule
        if len(arguments) != wanted:
            raise QueryError(f"{node.this} takes {wanted} argument{'s' if wanted > 1 else ''}.")
        return build(self, arguments)

    def stamp(self, arguments: list[Expression], micros: bool) -> Expression:
        """`toUnixTimestamp`: times are numbers already."""
        tag = resolve(self._catalogue, name_of(arguments[0]) or "")
        if tag is None or tag.unit not in {"s", "us"}:
            raise QueryError("toUnixTimestamp takes time, start_time or end_time.")
        value = tag.show(tag.keys)
        if (tag.unit == "us") == micros:
            return value
        return (
            call("intDiv", value, number(1_000_000))
            if tag.unit == "us"
            else exp.Mul(this=value, expression=number(1_000_000))
        )

    def choice(self, arguments: list[Expression]) -> Expression:
        """`if(condition, yes, no)`."""
        if self.condition is None:
            raise QueryError("if() cannot be used here.")
        return either(self.condition(arguments[0]), self.scalar(arguments[1]), self.scalar(arguments[2]))

    def mask(self, arguments: list[Expression]) -> Expression:
        """The network of an address, as text."""
        tag = resolve(self._catalogue, name_of(arguments[0]) or "")
        bits = numeric(arguments[1])
        if tag is None or tag.kind != "ip" or bits != int(bits) or not 0 <= bits <= 128:
            raise QueryError("mask takes an IP tag and a number of bits, for example mask(ip_0, 24).")
        v4, v6 = min(int(bits), 32) + 96, int(bits)
        mapped = call("startsWith", call("toString", tag.keys[0]), text("::ffff:"))
        length = call("if", mapped, number(v4), number(v6))
        masked = call("tupleElement", call("IPv6CIDRToRange", tag.keys[0], call("toUInt8", length)), number(1))
        return tag.show([masked])


_RowFunction = Callable[[RowCompiler, list[Expression]], Expression]
_ROW_FUNCTIONS: dict[str, tuple[int, _RowFunction]] = {
    "tostring": (1, lambda query, arguments: call("toString", query.scalar(arguments[0]))),
    "length": (1, lambda query, arguments: call("length", call("toString", query.scalar(arguments[0])))),
    "tounixtimestamp": (1, lambda query, arguments: query.stamp(arguments, micros=False)),
    "tounixtimestamp64micro": (1, lambda query, arguments: query.stamp(arguments, micros=True)),
    "if": (3, lambda query, arguments: query.choice(arguments)),
    "mask": (2, lambda query, arguments: query.mask(arguments)),
    "newtag": (1, lambda query, arguments: text(str(constant(arguments[0])))),
}
