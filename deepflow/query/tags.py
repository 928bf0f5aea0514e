"""What a tag means over stored columns: what to group by, what to show, how to filter.

Ids are grouped by and filtered by; names are looked up in the dictionaries of `flow_tag` after aggregation
(SmartEncoding).
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from deepflow.query.catalogue import Catalogue, TagEntry
from deepflow.query.constants import Constant, unix_seconds
from deepflow.query.errors import QueryError, shown
from deepflow.query.expressions import (
    Expression,
    all_of,
    any_of,
    call,
    column,
    compare,
    declared,
    either,
    is_in,
    negated,
    null,
    number,
    sql_of,
    table,
    text,
)

Show = Callable[[Sequence[Expression]], Expression]
Filter = Callable[[str, Constant], Expression]
"""Operator `=`, `<`, `<=`, `>`, `>=`, `like` or `regexp`, and a value → condition over stored columns."""
ADDRESS_TYPES = (0, 255)
"""Types of auto_instance and auto_service that are shown by address: internet, and a plain address."""
AUTO_TYPES = (1, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 101, 102, 103, 104, 105, 120, *range(130, 136))


@dataclass(frozen=True)
class Tag:
    """A tag of a table.

    `keys` are expressions over stored columns that make it up; `show` turns them, under whatever names, into what the
    reader sees.
    """

    name: str
    kind: str
    keys: tuple[Expression, ...]
    show: Show
    filter: Filter
    exists: Expression
    unit: str = ""
    enum: str | None = None
    icon: Show | None = field(default=None)
    node_type: Show | None = field(default=None)


@dataclass(frozen=True)
class _Resource:
    dictionary: str
    id: str
    device_type: int | None
    node_type: str


_RESOURCES = {
    "host": _Resource("host_map", "host_id", 6, "host"),
    "gprocess": _Resource("gprocess_map", "gprocess_id", 120, "gprocess"),
    "agent": _Resource("vtap_map", "agent_id", None, "vtap"),
}
_AUTOS = {"auto_instance", "auto_service"}
NODE_TYPES = {
    0: "internet_ip",
    1: "chost",
    5: "router",
    6: "host",
    9: "dhcp_gateway",
    10: "pod",
    11: "pod_service",
    12: "redis",
    13: "rds",
    14: "pod_node",
    15: "lb",
    16: "nat_gateway",
    101: "pod_group",
    102: "service",
    103: "pod_cluster",
    104: "custom_service",
    105: "custom_service",
    120: "gprocess",
    **dict.fromkeys(range(130, 136), "pod_group"),
    255: "ip",
}


def resolve(catalogue: Catalogue, name: str) -> Tag | None:
    """The tag that a query calls `name`; None when the table has none.

    Raises:
        QueryError: the tag exists but cannot be used this way.
    """
    entry = catalogue.tag(name)
    if entry is None:
        return None
    if entry.kind == "map":
        return _map(catalogue, entry, name)
    if entry.expr is not None:
        return _expression(catalogue, entry)
    if entry.type is None:
        if entry.base in _AUTOS:
            return _auto(catalogue, entry)
        rule = {"ip": _ip}.get(entry.kind, _resource)
        return rule(catalogue, entry)
    return _stored(catalogue, entry)


def first(keys: Sequence[Expression]) -> Expression:
    """Shows a tag as it is stored."""
    return keys[0]


def _stored(catalogue: Catalogue, entry: TagEntry) -> Tag:
    stored = column(entry.name)
    declared_type = entry.type or ""
    if entry.kind == "time":
        show: Show = lambda keys: call("toUnixTimestamp", keys[0])  # noqa: E731
        return Tag(entry.name, "time", (stored,), show, _time_filter(stored), call("isNotNull", stored), unit="s")
    if declared_type.startswith("DateTime64"):
        micros: Show = lambda keys: call("toUnixTimestamp64Micro", keys[0])  # noqa: E731
        return Tag(
            entry.name,
            entry.kind,
            (stored,),
            micros,
            _micros_filter(entry.name, stored),
            call("isNotNull", stored),
            unit="us",
        )
    if entry.enum is not None:
        condition = enum_filter(catalogue, entry.enum, stored)
    elif is_text(declared_type):
        condition = text_filter(stored)
    else:
        condition = number_filter(entry.name, stored)
    return Tag(
        entry.name,
        entry.kind,
        (stored,),
        first,
        condition,
        _exists(stored, declared_type),
        unit=entry.unit,
        enum=entry.enum,
    )


def _exists(stored: Expression, declared_type: str) -> Expression:
    if declared_type.startswith("Nullable"):
        return call("isNotNull", stored)
    return call("notEquals", stored, text("") if is_text(declared_type) else number(0))


def _expression(catalogue: Catalogue, entry: TagEntry) -> Tag:
    value = declared(entry.expr or "")
    pair = catalogue.sides(entry.name)
    if pair:  # a value of either side is found through the stored columns, where the index is
        sides = [_stored(catalogue, side) for side in pair]
        condition: Filter = lambda operator, wanted: any_of([side.filter(operator, wanted) for side in sides])  # noqa: E731
    else:
        condition = text_filter(value) if entry.kind == "string" else number_filter(entry.name, value)
    empty = text("") if entry.kind == "string" else number(0)
    return Tag(entry.name, entry.kind, (value,), first, condition, call("notEquals", value, empty))


def _resource(catalogue: Catalogue, entry: TagEntry) -> Tag:
    rule = _RESOURCES[entry.base]
    stored = column(rule.id + _suffix(entry))
    exists = call("notEquals", stored, number(0))

    def condition(operator: str, value: Constant) -> Expression:
        if operator == "=" and value == "":
            return negated(exists)
        return is_in(call("toUInt64", stored), _named_ids(rule.dictionary, "id", operator, value))

    def show(keys: Sequence[Expression]) -> Expression:
        return _dict_get(rule.dictionary, "name", call("toUInt64", keys[0]))

    def icon(keys: Sequence[Expression]) -> Expression:
        if rule.device_type is None:
            return number(0)
        return _dict_get("device_map", "icon_id", _device(number(rule.device_type), keys[0]))

    def node_type(keys: Sequence[Expression]) -> Expression:
        return either(call("notEquals", keys[0], number(0)), text(rule.node_type), text(""))

    return Tag(entry.name, entry.kind, (stored,), show, condition, exists, icon=icon, node_type=node_type)


def _auto(catalogue: Catalogue, entry: TagEntry) -> Tag:
    suffix = _suffix(entry)
    kind, identity = column(f"{entry.base}_type{suffix}"), column(f"{entry.base}_id{suffix}")
    by_address = is_in(kind, [number(one) for one in ADDRESS_TYPES])
    address = either(by_address, _address(suffix), call("toIPv6", text("::")))
    ip = _ip_filter(suffix)

    def condition(operator: str, value: Constant) -> Expression:
        device = call("tuple", call("toUInt64", kind), call("toUInt64", identity))
        named = is_in(device, _named_devices(operator, value))
        if operator == "=" and parse_network(str(value)) is None:
            return named
        return any_of([named, all_of([by_address, ip(operator, value)])])

    def show(keys: Sequence[Expression]) -> Expression:
        shown_by_address = is_in(keys[0], [number(one) for one in ADDRESS_TYPES])
        return either(
            shown_by_address, _address_text(keys[2]), _dict_get("device_map", "name", _device(keys[0], keys[1]))
        )

    def icon(keys: Sequence[Expression]) -> Expression:
        return _dict_get("device_map", "icon_id", _device(keys[0], keys[1]))

    def node_type(keys: Sequence[Expression]) -> Expression:
        values = exp.Array(expressions=[number(value) for value in NODE_TYPES])
        names = exp.Array(expressions=[text(name) for name in NODE_TYPES.values()])
        return call("transform", keys[0], values, names, text(""))

    exists = call("notEquals", identity, number(0))
    return Tag(
        entry.name, entry.kind, (kind, identity, address), show, condition, exists, icon=icon, node_type=node_type
    )


def _ip(catalogue: Catalogue, entry: TagEntry) -> Tag:
    suffix = _suffix(entry)
    address = _address(suffix)
    show: Show = lambda keys: _address_text(keys[0])  # noqa: E731
    exists = negated(is_in(address, [call("toIPv6", text("::")), call("toIPv6", text("::ffff:0.0.0.0"))]))
    return Tag(entry.name, "ip", (address,), show, _ip_filter(suffix), exists)


def _address(suffix: str) -> Expression:
    """Both families as one key: IPv4 is `::ffff:a.b.c.d`."""
    valid4 = compare("=", column("is_ipv4"), number(1))
    return either(valid4, call("toIPv6", column(f"ip4{suffix}")), column(f"ip6{suffix}"))


def _address_text(address: Expression) -> Expression:
    return call("replaceRegexpOne", call("toString", address), text("^::ffff:"), text(""))


def parse_network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """An address or `address/bits`; None when the text is neither."""
    try:
        return ipaddress.ip_network(value, strict=False) if "%" not in value else None
    except ValueError:
        return None


def _ip_filter(suffix: str) -> Filter:
    def condition(operator: str, value: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            return text_filter(_address_text(_address(suffix)))(operator, value)
        network = parse_network(str(value))
        if network is None:
            raise QueryError(f'"{shown(str(value))}" is not an IP address.')
        low, high = str(network.network_address), str(network.broadcast_address)
        family, name = ("1", "ip4") if network.version == 4 else ("0", "ip6")
        stored = column(f"{name}{suffix}")
        convert = "toIPv4" if network.version == 4 else "toIPv6"
        same_family = compare("=", column("is_ipv4"), exp.Literal.number(family))
        if operator != "=":
            return all_of([same_family, compare(operator, stored, call(convert, text(low)))])
        if low == high:
            return all_of([same_family, compare("=", stored, call(convert, text(low)))])
        return all_of(
            [
                same_family,
                compare(">=", stored, call(convert, text(low))),
                compare("<=", stored, call(convert, text(high))),
            ]
        )

    return condition


def _map(catalogue: Catalogue, entry: TagEntry, name: str) -> Tag:
    names, values = column(f"{entry.base}_names"), column(f"{entry.base}_values")
    if name == entry.name:
        whole = call("toJSONString", call("mapFromArrays", call("CAST", names, text("Array(String)")), values))
        return Tag(name, "map", (whole,), first, text_filter(whole), call("notEmpty", names))
    position = call("indexOf", names, text(name.split(".", 1)[1]))
    member = exp.Bracket(this=values, expressions=[position.copy()])
    exists = call("notEquals", position, number(0))
    return Tag(name, "string", (either(exists, member, null()),), first, text_filter(member), exists)


def _suffix(entry: TagEntry) -> str:
    return "" if entry.side is None else f"_{entry.side}"


def _device(kind: Expression, identity: Expression) -> Expression:
    return call("tuple", call("toUInt64", kind), call("toUInt64", identity))


def _dict_get(dictionary: str, attribute: str, key: Expression) -> Expression:
    return call("dictGet", text(f"flow_tag.{dictionary}"), text(attribute), key)


def _named_ids(dictionary: str, key: str, operator: str, value: Constant) -> exp.Select:
    return (
        exp.select(column(key)).from_(table("flow_tag", dictionary)).where(text_filter(column("name"))(operator, value))
    )


def _named_devices(operator: str, value: Constant) -> exp.Select:
    kinds = is_in(column("devicetype"), [number(one) for one in AUTO_TYPES])
    return (
        exp.select(column("devicetype"), column("deviceid"))
        .from_(table("flow_tag", "device_map"))
        .where(all_of([text_filter(column("name"))(operator, value), kinds]))
    )


def is_text(clickhouse_type: str) -> bool:
    """Whether a column of this type holds text."""
    return clickhouse_type.replace("Nullable(", "").replace("LowCardinality(", "").startswith("String")


def wildcard(pattern: str) -> str:
    """A LIKE pattern: `*` is any text, as `%` is."""
    return pattern.replace("*", "%")


def text_filter(value: Expression) -> Filter:
    """Filter over a string expression; LIKE ignores case as in DeepFlow."""

    def condition(operator: str, wanted: Constant) -> Expression:
        literal = text(str(wanted) if wanted is not None else "")
        if operator == "like":
            return exp.ILike(this=value.copy(), expression=text(wildcard(str(wanted))))
        if operator == "regexp":
            return call("match", value, text(_pattern(str(wanted))))
        return compare(operator, value, literal)

    return condition


_UNSUPPORTED_IN_RE2 = re.compile(r"\(\?(=|!|<=|<!|P=)|\\[1-9]")


def _pattern(pattern: str) -> str:
    if "\0" in pattern or _UNSUPPORTED_IN_RE2.search(pattern):
        raise QueryError(
            f'The pattern "{shown(pattern)}" is not a regular expression of RE2 (no look-around, no back reference).'
        )
    return pattern


def number_filter(name: str, value: Expression) -> Filter:
    """Filter over a number; a quoted number is accepted."""

    def condition(operator: str, wanted: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            return text_filter(call("toString", value))(operator, wanted)
        return compare(operator, value, number(as_number(name, wanted)))

    return condition


def as_number(name: str, wanted: Constant) -> int | float:
    """The value as a number.

    Raises:
        QueryError: it is not one.
    """
    if isinstance(wanted, str):
        try:
            return int(wanted) if len(wanted) <= 30 else float("nan") // 0
        except (ValueError, ZeroDivisionError):
            raise QueryError(f'"{name}" is a number, "{shown(wanted)}" is not.') from None
    if wanted is None:
        raise QueryError(f'"{name}" cannot be compared with NULL; use exist({name}).')
    return wanted


def _time_filter(stored: Expression) -> Filter:
    def condition(operator: str, wanted: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            raise QueryError("time is compared with =, <, <=, > and >=.")
        return compare(operator, stored, number(unix_seconds(wanted)))

    return condition


def _micros_filter(name: str, stored: Expression) -> Filter:
    def condition(operator: str, wanted: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            raise QueryError(f"{name} is compared with =, <, <=, > and >=.")
        value = int(as_number(name, wanted))
        if not 0 <= value < 2**53:
            raise QueryError(f"{name} is a time in microseconds since 1970.")
        return compare(operator, stored, call("fromUnixTimestamp64Micro", call("toInt64", number(value)), text("UTC")))

    return condition


def enum_names(catalogue: Catalogue, enum: str) -> dict[int | str, str]:
    """Value → name of an enumeration."""
    return dict(catalogue.schema.enums[enum])


def enum_filter(catalogue: Catalogue, enum: str, stored: Expression) -> Filter:
    """Filter by number, by stored string or by name; names become values here, so that the store compares values."""
    names = enum_names(catalogue, enum)
    numeric = all(isinstance(value, int) for value in names)

    def condition(operator: str, wanted: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            return text_filter(enum_name(catalogue, enum, stored))(operator, wanted)
        if not numeric:
            values = [value for value, name in names.items() if name == wanted] if operator == "=" else []
            direct = compare(operator, stored, text(str(wanted)))
            return any_of([direct, is_in(stored, [text(str(value)) for value in values])]) if values else direct
        if isinstance(wanted, str) and not _is_integer(wanted):
            if operator != "=":
                raise QueryError(
                    f'Names such as "{shown(wanted)}" are compared with = and !=, numbers also with < and >.'
                )
            known = [value for value, name in names.items() if name.lower() == wanted.lower()]
            return (
                is_in(stored, [number(int(value)) for value in known]) if known else compare("=", number(0), number(1))
            )
        return compare(operator, stored, number(as_number(enum, wanted)))

    return condition


def _is_integer(value: str) -> bool:
    return value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 20


def enum_name(catalogue: Catalogue, enum: str, value: Expression) -> Expression:
    """The name of an enumeration's value by dictionary, the value itself where it has no name."""
    names = enum_names(catalogue, enum)
    if all(isinstance(one, int) for one in names):
        key = call("tuple", text(enum), call("toUInt64", value))
        return call("dictGetOrDefault", text("flow_tag.int_enum_map"), text("name_en"), key, call("toString", value))
    key = call("tuple", text(enum), call("toString", value))
    return call("dictGetOrDefault", text("flow_tag.string_enum_map"), text("name_en"), key, call("toString", value))


def signature(tag: Tag) -> tuple[str, ...]:
    """SQL of the keys: equal for tags that can share a grouping."""
    return tuple(sql_of(key) for key in tag.keys)
