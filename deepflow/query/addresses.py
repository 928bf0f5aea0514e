"""IP and Ethernet addresses: how they are stored, shown and compared."""

import ipaddress
import re
from dataclasses import dataclass

from sqlglot import exp

from deepflow.query.comparisons import Filter, text_filter
from deepflow.query.constants import Constant
from deepflow.query.errors import QueryError, shown
from deepflow.query.expressions import Expression, all_of, call, column, compare, either, is_in, negated, number, text

_UNSPECIFIED = ("::", "::ffff:0.0.0.0")
_MAC = re.compile(r"([0-9a-f]{2}:){3}([0-9a-f]{2}:){0,2}[0-9a-f]{2}")
_MAC_GROUPS = {4: 32, 6: 48}


@dataclass(frozen=True)
class IpColumns:
    """The stored columns of one address."""

    v4: str
    v6: str | None
    """None where only IPv4 is stored."""
    is_ipv4: str | None

    @property
    def value(self) -> Expression:
        """Both families as one key: IPv4 is `::ffff:a.b.c.d`."""
        v4 = call("toIPv6", column(self.v4))
        if self.v6 is None or self.is_ipv4 is None:
            return v4
        return either(compare("=", column(self.is_ipv4), number(1)), v4, column(self.v6))

    @property
    def exists(self) -> Expression:
        """Whether there is an address."""
        return negated(is_in(self.value, [call("toIPv6", text(one)) for one in _UNSPECIFIED]))

    @property
    def filter(self) -> Filter:
        """Compares with an address or with `address/bits`, through the stored columns, where the index is."""
        return self._condition

    def _condition(self, operator: str, value: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            return text_filter(address_text(self.value))(operator, value)
        network = parse_network(str(value))
        if network is None:
            raise QueryError(f'"{shown(str(value))}" is not an IP address.')
        stored = self.v4 if network.version == 4 else self.v6
        if stored is None:
            return compare("=", number(0), number(1))
        convert = "toIPv4" if network.version == 4 else "toIPv6"
        low, high = (call(convert, text(str(one))) for one in (network.network_address, network.broadcast_address))
        if operator != "=":
            conditions = [compare(operator, column(stored), low)]
        elif network.num_addresses == 1:
            conditions = [compare("=", column(stored), low)]
        else:
            conditions = [compare(">=", column(stored), low), compare("<=", column(stored), high)]
        if self.is_ipv4 is not None:
            family = exp.Literal.number(1 if network.version == 4 else 0)
            conditions.insert(0, compare("=", column(self.is_ipv4), family))
        return all_of(conditions)


def ip_columns(base: str, suffix: str = "") -> IpColumns:
    """Columns of the tag `base` (`ip`, `tunnel_tx_ip`, `nat_real_ip`); `suffix` is that of the side."""
    if base == "nat_real_ip":
        return IpColumns(f"{base}4{suffix}", None, None)
    family = "tunnel_is_ipv4" if base.startswith("tunnel") else "is_ipv4"
    return IpColumns(f"{base}4{suffix}", f"{base}6{suffix}", family)


def address_text(address: Expression) -> Expression:
    """An address as people write it."""
    return call("replaceRegexpOne", call("toString", address), text("^::ffff:"), text(""))


def parse_network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """An address or `address/bits`; None when the text is neither."""
    try:
        return ipaddress.ip_network(value, strict=False) if "%" not in value else None
    except ValueError:
        return None


def mac_text(address: Expression, whole: bool) -> Expression:
    """`aa:bb:cc:dd:ee:ff`, of the low 32 bits `cc:dd:ee:ff`; empty for 0."""
    written = call("lower", call("MACNumToString", call("toUInt64", address)))
    shown_part = written if whole else call("substring", written, number(7))
    return either(call("equals", address, number(0)), text(""), shown_part)


def mac_filter(name: str, stored: Expression, whole: bool) -> Filter:
    """Filter over an Ethernet address; the low 32 bits are compared where no more are stored or written."""

    def condition(operator: str, wanted: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            return text_filter(mac_text(stored, whole))(operator, wanted)
        if isinstance(wanted, int):
            return compare(operator, stored, number(wanted))
        written = str(wanted).lower()
        if written == "":
            return compare(operator, stored, number(0))
        bits = _MAC_GROUPS.get(len(written.split(":")))
        if bits is None or not _MAC.fullmatch(written):
            raise QueryError(f'{name} is an Ethernet address, "{shown(str(wanted))}" is not.')
        value = int(written.replace(":", ""), 16)
        if whole and bits == 48:
            return compare(operator, stored, number(value))
        low = call("bitAnd", stored, number(0xFFFF_FFFF)) if whole else stored
        return compare(operator, low, number(value & 0xFFFF_FFFF))

    return condition
