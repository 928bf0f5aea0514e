"""What a tag means over stored columns: what to group by, what to show, how to filter.

Ids are grouped by and filtered by; names are looked up in the dictionaries of `flow_tag` after aggregation
(SmartEncoding).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from deepflow.query.addresses import address_text, ip_columns, mac_filter, mac_text, parse_network
from deepflow.query.catalogue import Catalogue, TagEntry
from deepflow.query.comparisons import (
    Filter,
    as_number,
    is_text,
    micros_filter,
    number_filter,
    text_filter,
    time_filter,
)
from deepflow.query.constants import Constant
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
        rule = {"ip": _ip, "string": _interface_name}.get(entry.kind, _resource)
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
        return Tag(entry.name, "time", (stored,), show, time_filter(stored), call("isNotNull", stored), unit="s")
    if declared_type.startswith("DateTime64"):
        micros: Show = lambda keys: call("toUnixTimestamp64Micro", keys[0])  # noqa: E731
        return Tag(
            entry.name,
            entry.kind,
            (stored,),
            micros,
            micros_filter(entry.name, stored),
            call("isNotNull", stored),
            unit="us",
        )
    if entry.kind == "mac":
        whole = declared_type == "UInt64"
        macs: Show = lambda keys: mac_text(keys[0], whole)  # noqa: E731
        return Tag(
            entry.name,
            "mac",
            (stored,),
            macs,
            mac_filter(entry.name, stored, whole),
            _exists(stored, declared_type),
        )
    if entry.enum is not None and entry.kind == "bit_enum":
        condition = bits_filter(catalogue, entry.enum, stored)
    elif entry.enum is not None:
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
    stored = ip_columns("ip", suffix)
    address = either(by_address, stored.value, call("toIPv6", text("::")))
    ip = stored.filter

    def condition(operator: str, value: Constant) -> Expression:
        device = call("tuple", call("toUInt64", kind), call("toUInt64", identity))
        named = is_in(device, _named_devices(operator, value))
        if operator == "=" and parse_network(str(value)) is None:
            return named
        return any_of([named, all_of([by_address, ip(operator, value)])])

    def show(keys: Sequence[Expression]) -> Expression:
        shown_by_address = is_in(keys[0], [number(one) for one in ADDRESS_TYPES])
        return either(
            shown_by_address, address_text(keys[2]), _dict_get("device_map", "name", _device(keys[0], keys[1]))
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
    stored = ip_columns(entry.base, _suffix(entry))
    optional = entry.base != "ip"

    def show(keys: Sequence[Expression]) -> Expression:
        address = address_text(keys[0])
        unspecified = is_in(address, [text("::"), text("0.0.0.0")])
        return either(unspecified, text(""), address) if optional else address

    return Tag(entry.name, "ip", (stored.value,), show, stored.filter, stored.exists)


def _interface_name(catalogue: Catalogue, entry: TagEntry) -> Tag:
    point = call("tuple", call("toUInt64", column("agent_id")), call("toUInt64", column("capture_nic")))
    # Interfaces of one name on several hosts are one group, as for any text.
    name = _dict_get("vtap_port_map", "name", point)

    def condition(operator: str, value: Constant) -> Expression:
        if operator != "=" or not value:
            return text_filter(name)(operator, value)
        named = exp.select(column("vtap_id"), column("tap_port")).from_(table("flow_tag", "vtap_port_map"))
        return is_in(point, named.where(text_filter(column("name"))(operator, value)))

    return Tag(entry.name, entry.kind, (name,), first, condition, call("notEmpty", name))


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


def bits_filter(catalogue: Catalogue, enum: str, stored: Expression) -> Filter:
    """Filter over a set of bits: by number, or `=` with names (`SYN`, `SYN|ACK`) that must all be set."""
    bits = {name.lower(): int(value) for value, name in enum_names(catalogue, enum).items()}

    def condition(operator: str, wanted: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            return text_filter(bit_names(catalogue, enum, stored))(operator, wanted)
        if not isinstance(wanted, str) or _is_integer(wanted):
            return compare(operator, stored, number(as_number(enum, wanted)))
        names = [name.strip().lower() for name in wanted.split("|")]
        if operator != "=" or any(name not in bits for name in names):
            raise QueryError(f'"{shown(wanted)}" is no set of {enum}; compare with = and {", ".join(sorted(bits))}.')
        mask = number(sum(1 << bits[name] for name in set(names)))
        return compare("=", call("bitAnd", stored, mask), mask)

    return condition


def bit_names(catalogue: Catalogue, enum: str, value: Expression) -> Expression:
    """The names of the bits that are set, `SYN|ACK`."""
    bit = exp.Identifier(this="bit", quoted=True)
    named = exp.Lambda(this=enum_name(catalogue, enum, column("bit")), expressions=[bit])
    return call("arrayStringConcat", call("arrayMap", named, call("bitPositionsToArray", value)), text("|"))


def signature(tag: Tag) -> tuple[str, ...]:
    """SQL of the keys: equal for tags that can share a grouping."""
    return tuple(sql_of(key) for key in tag.keys)
