"""The sightings of one call along its way, ordered from client process to server process.

Over TCP they share sequence numbers, also where address translation rewrote both ends; over UDP both ends and the
request id that the protocol itself gives, and where an end was rewritten the name that DNS asks for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from deepflow.trace.row import PACKET, RANK, Row, Side

TCP, UDP = 6, 17
DNS, PING = 120, 122
#: What a server socket that is bound to every address says of its own.
UNSPECIFIED = frozenset(("", "0.0.0.0", "::"))
#: The interfaces of client and server: each is on one host, so two hosts that see such a one see two calls.
ENDS = frozenset(("c", "s"))
#: Longest text that two sightings of one call are compared by; captures cut longer ones at different places.
COMPARED_TEXT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far clocks and hooks may disagree, µs. Names and defaults are DeepFlow's where it has them."""

    network_delay_us: int = 50_000
    #: Added when two agents with their own clocks saw the rows.
    host_clock_offset_us: int = 10_000
    #: Clock difference believed when request and response numbers are both equal: 64 bits do not agree by chance.
    sequence_clock_offset_us: int = 5_000_000
    #: How long a request without an answer may wait until the server reads it.
    unanswered_us: int = 120_000_000
    #: A send is reported when it is done; over loopback the reader may be reported before it.
    hook_order_us: int = 1_000

    def between(self, one: Row, other: Row, *, sure: bool = False) -> int:
        """Deviation allowed between the times of two rows; `sure` when their identity is proven otherwise."""
        if one.agent_id == other.agent_id:
            return self.network_delay_us
        return self.network_delay_us + (self.sequence_clock_offset_us if sure else self.host_clock_offset_us)


def sequences_agree(one: Row, other: Row) -> int:
    """How many of the two sequence numbers are known on both sides and equal; 0 also when one of them differs."""
    known = _known_numbers(one, other)
    return len(known) if all(a == b for a, b in known) else 0


def _known_numbers(one: Row, other: Row) -> list[tuple[int, int]]:
    numbers = ((one.req_tcp_seq, other.req_tcp_seq), (one.resp_tcp_seq, other.resp_tcp_seq))
    return [(a, b) for a, b in numbers if a and b]


def covers(outer: Row, inner: Row, slack_us: int, unanswered_us: int) -> bool:
    """Whether `inner` can be a part of `outer` in time. An outer request without answer ends at an unknown time."""
    if not outer.has_request or not inner.has_request:
        return abs(outer.end_us - inner.end_us) <= slack_us if outer.has_response and inner.has_response else True
    if inner.start_us < outer.start_us - slack_us:
        return False
    if not outer.has_response:
        return inner.start_us <= outer.start_us + unanswered_us
    end = inner.end_us if inner.has_response else inner.start_us
    return end <= outer.end_us + slack_us


def conflict(one: Row, other: Row) -> bool:
    """Whether two rows cannot be sightings of one call: a field known in both differs. Unknown never conflicts."""
    if one.l7_protocol != other.l7_protocol or one.protocol != other.protocol:
        return True
    if one.trace_ids and other.trace_ids and one.trace_ids.isdisjoint(other.trace_ids):
        return True
    if one.agent_id != other.agent_id and one.observation_point == other.observation_point in ENDS:
        return True
    exact = (
        (one.request_type, other.request_type),
        (one.version, other.version),
        (one.x_request_id_0, other.x_request_id_0),
        (one.x_request_id_1, other.x_request_id_1),
        (one.span_id, other.span_id),
    )
    if any(a and b and a != b for a, b in exact):
        return True
    numbers = ((one.request_id, other.request_id), (one.response_code, other.response_code))
    if any(a is not None and b is not None and a != b for a, b in numbers):
        return True
    texts = (
        (one.request_domain, other.request_domain),
        (one.request_resource, other.request_resource),
        (one.response_exception, other.response_exception),
    )
    return any(_differ(a, b) for a, b in texts)


def _differ(one: str, other: str) -> bool:
    one, other = one[:COMPARED_TEXT], other[:COMPARED_TEXT]
    return not (one.startswith(other) or other.startswith(one))


def same_connection(one: Row, other: Row) -> int:
    """How well both ends agree: 3 all equal, 2 ports equal, 1 one end rewritten as NAT does, 0 not one connection."""
    client_port, server_port = one.client_port == other.client_port, one.server_port == other.server_port
    client_ip, server_ip = one.client.ip == other.client.ip, one.server.ip == other.server.ip
    if client_port and server_port:
        return 3 if client_ip and server_ip else 2
    if client_port or (server_port and server_ip and not client_ip):
        return 1
    return 0


def same_exchange(one: Row, other: Row) -> int:
    """How well two rows agree to be one exchange of datagrams: 3 request id, ports and addresses are equal, 2 so is
    what is known of them, 1 the id is and DNS asks for the same name (an end was rewritten), 0 they are not."""
    if one.protocol == TCP or one.protocol != other.protocol:
        return 0
    if one.request_id is None or one.request_id != other.request_id:
        return 0
    if (one.client_port, one.server_port) == (other.client_port, other.server_port):
        known = min(_same_address(one.client, other.client), _same_address(one.server, other.server))
        if known and (one.l7_protocol != PING or one.request_resource == other.request_resource):
            return known
    return 1 if _exchange_name(one) and _exchange_name(one) == _exchange_name(other) else 0


def _exchange_name(row: Row) -> str:
    """What a datagram asks for, where that and the id survive address translation; empty where nothing does."""
    if row.l7_protocol == DNS:
        return row.request_resource
    return f"{row.request_resource} {row.server.ip}" if row.l7_protocol == PING else ""


def _same_address(one: Side, other: Side) -> int:
    if one.ip == other.ip:
        return 3
    return 2 if one.ip in UNSPECIFIED or other.ip in UNSPECIFIED else 0


def evidence(outer: Row, inner: Row, tolerance: Tolerance) -> tuple[int, int, int] | None:
    """Strength (larger is stronger) of the claim that both rows are sightings of one call, None when they are not."""
    exchange = same_exchange(outer, inner)
    equal = 1 if exchange else sequences_agree(outer, inner)
    if not equal or contradict(outer, inner, tolerance):
        return None
    connection = exchange or same_connection(outer, inner)
    # Both numbers together do not agree by chance, whatever two translations made of the ends; one alone does.
    if not exchange and connection < 2 and equal < 2:
        return None
    if exchange == 1 and _one_process(outer, inner):
        # A resolver that asks further under the id it was asked with.
        return None
    return connection, equal, int(outer.request_resource == inner.request_resource)


def contradict(outer: Row, inner: Row, tolerance: Tolerance) -> bool:
    """Whether two rows cannot be sightings of one call: a number or a field known in both differs, or the times do."""
    known = _known_numbers(outer, inner)
    if any(a != b for a, b in known) or conflict(outer, inner):
        return True
    return not covers(outer, inner, tolerance.between(outer, inner, sure=len(known) == 2), tolerance.unanswered_us)


def _one_process(client: Row, server: Row) -> bool:
    if not client.is_client_process or not server.is_server_process or client.agent_id != server.agent_id:
        return False
    return client.client.process_id == server.server.process_id != 0


@dataclass(slots=True)
class Call:
    """One call as it was seen along its way, in the order of the way: at most one client and one server process."""

    rows: list[Row]

    @property
    def first(self) -> Row:
        return self.rows[0]

    @property
    def last(self) -> Row:
        return self.rows[-1]

    def links(self) -> Iterable[tuple[Row, Row]]:
        """(parent, child) of neighbours on the way."""
        return pairwise(self.rows)


def along_the_way(rows: Iterable[Row]) -> list[Row]:
    """Sightings of one call from client to server.

    The places say the order; of several sightings at one place (the ends of a veth, a segment sent again) the earlier
    one comes first, and of equally early ones the one that ended later. A place that is not on the list (`local`,
    `rest`) lies between the processes, where its time puts it among what the same clock saw.
    """
    listed = list(rows)
    way = _by_one_clock(sorted((row for row in listed if row.rank is not None), key=_by_place))
    for row in sorted((row for row in listed if row.rank is None), key=_by_place):
        way.insert(_place_by_time(row, way), row)
    return way


def _by_one_clock(way: list[Row]) -> list[Row]:
    """Where addresses are rewritten on one side of the way, time says more than places, if one clock saw it all: behind
    the translation a node has the address that counts as the client's, so that a `c` follows a `c-nd`."""
    halves: dict[bool, list[Row]] = {True: [], False: []}
    for row in way:
        if row.signal_source == PACKET:
            halves[(row.rank or 0) <= RANK["c-gw"]].append(row)
    for half in halves.values():
        translated = len({(row.client.ip, row.client_port, row.server.ip, row.server_port) for row in half}) > 1
        one_clock = len({row.agent_id for row in half}) == 1
        if translated and one_clock and all(row.has_request for row in half):
            half.sort(key=lambda row: (row.start_us, -row.end_us, row.rank or 0, row.id))
    clients = [row for row in way if row.is_client_process]
    servers = [row for row in way if row.is_server_process]
    return [*clients, *halves[True], *halves[False], *servers]


def _by_place(row: Row) -> tuple[int, int, int, int]:
    return row.rank or 0, row.start_us, -row.end_us, row.id


def _place_by_time(row: Row, way: Sequence[Row]) -> int:
    first = sum(1 for other in way if other.is_client_process)
    last = len(way) - sum(1 for other in way if other.is_server_process)
    same_clock = [at for at in range(first, last) if way[at].agent_id == row.agent_id]
    if same_clock:
        before = [at for at in same_clock if _earlier(way[at], row)]
        return before[-1] + 1 if before else same_clock[0]
    # Seen by another host than the others: between the halves of the way.
    return next((at for at in range(first, last) if (way[at].rank or 0) > RANK["c-gw"]), last)


def _earlier(one: Row, other: Row) -> bool:
    """Whether `one` is nearer to the client by one clock: a request passes it earlier, a response later."""
    if one.has_request and other.has_request and one.start_us != other.start_us:
        return one.start_us < other.start_us
    return one.end_us >= other.end_us if one.has_response and other.has_response else True


def _nearer(one: Row, other: Row) -> bool:
    if one.rank is None or other.rank is None:
        return not other.is_client_process and (one.is_client_process or _earlier(one, other))
    return (one.rank, one.start_us) <= (other.rank, other.start_us)


def calls(rows: Sequence[Row], tolerance: Tolerance) -> list[Call]:
    """Groups rows into calls; a row that agrees with none is a call of its own. Ambiguous rows stay apart."""
    found: list[Call] = []
    for group in _same_sequence(rows):
        found += _calls_of(group, tolerance)
    return found


def _same_sequence(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that share a sequence number or the id of a UDP request, directly or through others."""
    leader = list(range(len(rows)))

    def find(at: int) -> int:
        while leader[at] != at:
            leader[at] = leader[leader[at]]
            at = leader[at]
        return at

    seen: dict[tuple[object, ...], int] = {}
    for at, row in enumerate(rows):
        for key in _numbers(row):
            leader[find(at)] = find(seen.setdefault(key, at))
    groups: dict[int, list[Row]] = defaultdict(list)
    for at, row in enumerate(rows):
        groups[find(at)].append(row)
    return list(groups.values())


def _numbers(row: Row) -> Iterable[tuple[object, ...]]:
    if row.req_tcp_seq:
        yield "request", row.req_tcp_seq
    if row.resp_tcp_seq:
        yield "response", row.resp_tcp_seq
    if row.protocol != TCP and row.request_id is not None:
        yield "exchange", row.request_id, row.client_port, row.server_port
        if name := _exchange_name(row):
            yield "named exchange", row.request_id, name


def _calls_of(group: list[Row], tolerance: Tolerance) -> list[Call]:
    if len(group) == 1:
        return [Call(group)]
    clients = [row for row in group if row.is_client_process]
    servers = [row for row in group if row.is_server_process]
    between = [row for row in group if row.signal_source == PACKET]
    paired = _pairs(clients, servers, tolerance)
    found = [Call([row, paired[row.id]] if row.id in paired else [row]) for row in clients]
    taken = {row.id for row in paired.values()}
    found += [Call([row]) for row in servers if row.id not in taken]
    # Who has both numbers is told apart best, and then leads those who have one.
    for row in sorted(between, key=lambda r: (-_halves(r), _by_place(r))):
        call = _call_seen_by(row, found, tolerance)
        if call is None:
            found.append(Call([row]))
        else:
            call.rows.append(row)
    for call in found:
        call.rows = along_the_way(call.rows)
    placed = {row.id for call in found for row in call.rows}
    return found + [Call([row]) for row in group if row.id not in placed]


def _pairs(clients: list[Row], servers: list[Row], tolerance: Tolerance) -> dict[int, Row]:
    """Client row id → the server row of the same call, one to one.

    Rows that are equally good for one another pair in the order of time, and only when no end is missing.
    """
    strength: dict[tuple[int, int], tuple[int, int, int]] = {}
    for client in clients:
        for server in servers:
            found = evidence(client, server, tolerance)
            if found is not None:
                strength[client.id, server.id] = found
    by_id = {row.id: row for row in (*clients, *servers)}
    pairs: dict[int, Row] = {}
    for level in sorted(set(strength.values()), reverse=True):
        partners: dict[int, set[int]] = defaultdict(set)
        for (client_id, server_id), value in strength.items():
            if value == level and client_id not in pairs:
                partners[client_id].add(server_id)
        free = {row.id for row in servers} - {row.id for row in pairs.values()}
        for ours, theirs in _equivalent(partners, free):
            order = [sorted((by_id[i] for i in side), key=lambda r: (r.start_us, r.id)) for side in (ours, theirs)]
            in_order = list(zip(*order, strict=False))
            if len(ours) != len(theirs) or any(strength.get((c.id, s.id)) != level for c, s in in_order):
                # One of them was not seen: which one belongs to which cannot be known, nor at a weaker level.
                strength = {pair: v for pair, v in strength.items() if pair[0] not in ours and pair[1] not in theirs}
                continue
            pairs |= {client.id: server for client, server in in_order}
    return pairs


def _equivalent(partners: dict[int, set[int]], free: set[int]) -> list[tuple[set[int], set[int]]]:
    """Connected parts of the graph client → possible servers."""
    parts: list[tuple[set[int], set[int]]] = []
    for client, possible in partners.items():
        ours, theirs = {client}, possible & free
        if not theirs:
            continue
        apart: list[tuple[set[int], set[int]]] = []
        for part in parts:
            if part[1] & theirs:
                ours, theirs = ours | part[0], theirs | part[1]
            else:
                apart.append(part)
        parts = [*apart, (ours, theirs)]
    return parts


def _halves(row: Row) -> int:
    return int(row.has_request) + int(row.has_response)


def _call_seen_by(row: Row, found: list[Call], tolerance: Tolerance) -> Call | None:
    """The one call that a packet sighting belongs to, None when there is none or more than one equally good."""
    best: list[tuple[tuple[int, int, int], Call]] = []
    for call in found:
        pairs = [(member, row) if _nearer(member, row) else (row, member) for member in call.rows]
        if any(contradict(outer, inner, tolerance) for outer, inner in pairs):
            continue
        # On the far side of a translation one number proves nothing, but another sighting there may vouch for it.
        marks = [mark for outer, inner in pairs if (mark := evidence(outer, inner, tolerance)) is not None]
        if marks:
            best.append((max(marks), call))
    if not best:
        return None
    strongest = max(mark for mark, _ in best)
    winners = [call for mark, call in best if mark == strongest]
    return winners[0] if len(winners) == 1 else None
