"""Names the far end of a connection by what the agent at that end said of it.

An agent knows the processes of its own host. What its rows say of them is kept for a while under the connection's
addresses and ports, under the sequence numbers of a call, under the server's address and port, and under the client's
address with the server's; rows of other agents that do not know an end find it there. See docs/network.md.
"""

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepflow.resources.claims import DUE_S, Bools, Claims, Ints, Keys, Tally, Who
from deepflow.resources.tagger import IP_TYPE, PROCESS_TYPE, Side

_CONNECTIONS = 1 << 18
_CALLS = 1 << 18
_PLACES = 1 << 17
# The numbers of TCP that address translation leaves alone, by table.
_NUMBERS = (("req_tcp_seq", "resp_tcp_seq"), ("syn_seq", "syn_ack_seq"))
# Where a side was seen at its own socket or interface, under the address that it calls its own.
_AT_HOME = (("c-p", "c"), ("s-p", "s"))
# How far the clocks of two hosts may differ.
_CLOCKS_S = 2
Sides = dict[int | None, Side]


@dataclass(slots=True)
class _Rows:
    """The rows of a log in which an end is to be named."""

    table: pa.Table
    index: Ints
    """Their places in the batch."""
    address: tuple[Keys, Keys]
    service: Keys
    """Protocol and server port."""
    protocol: Ints
    client_port: Ints
    connection: Keys
    time_s: Ints
    known: tuple[Bools, Bools]
    """Whose process the agent named and the server knows."""
    asked: tuple[Bools, Bools]
    """Whose process the agent does not know."""
    who: list[Who]


class FarEnds:
    """All claims of all agents; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections = Claims(_CONNECTIONS)
        self._calls = Claims(_CALLS)
        self._places = Claims(_PLACES)
        # Nobody outside can choose addresses that meet under one key.
        self._secret = np.uint64(secrets.randbits(64))

    def name(self, rows: pa.Table, sides: Sides, tally: Tally) -> Sides:
        """The sides with their far ends named.

        Args:
            rows: of any table of flows, calls or their meters, wire schema.
            sides: tags by what the agent itself knew; key None for a table of ends.
            tally: what was learned and found is added to it.
        """
        pids = {side: _numbers(rows, _sided("process_id", side)) for side in sides}
        unnamed = {side: pid == 0 for side, pid in pids.items()}
        if not any(mask.any() for mask in unnamed.values()):
            return sides
        time_s = np.minimum(_numbers(rows, "time"), int(time.time()))
        with self._lock:
            if None in sides:
                found: dict[int | None, tuple[Ints, Who]] = {None: self._end(rows, time_s, unnamed[None], tally)}
            elif "client_port" in rows.column_names:
                found = self._log(rows, time_s, sides, unnamed, tally)
            else:
                found = self._pair(rows, time_s, unnamed, tally)
        return {side: _merged(tags, found[side], tally) if side in found else tags for side, tags in sides.items()}

    def open(self, rows: pa.Table, sides: Sides) -> Bools:
        """Rows with an end that no process and no service is known of, where another agent may be."""
        leaves = np.ones(rows.num_rows, np.bool_)
        unknown = np.zeros(rows.num_rows, np.bool_)
        for side, tags in sides.items():
            leaves &= self._addresses(rows, side)[1]
            unknown |= (tags.auto_service_id == 0) & (_numbers(rows, _sided("process_id", side)) == 0)
        return leaves & unknown

    def _log(
        self, table: pa.Table, time_s: Ints, sides: Sides, unnamed: dict[int | None, Bools], tally: Tally
    ) -> dict[int | None, tuple[Ints, Who]]:
        rows = self._rows_of_log(table, time_s, sides, unnamed)
        keys = (_side_key(rows.connection, 0), _side_key(rows.connection, 1))
        left = (rows.asked[0].copy(), rows.asked[1].copy())
        news = self._learn(rows, keys, tally)
        for side in (0, 1):
            left[side][self._ask(self._connections, keys[side], rows, side, left[side], (0,), tally)] = False
        self._by_numbers(rows, keys, left, news, tally)
        self._by_real_address(rows, keys[0], left[0], tally)
        server = self._server_key(rows.address[1], rows.service)
        self._ask(self._places, server, rows, 1, left[1], (0, 1), tally)
        return {side: (rows.index, rows.who[side]) for side in (0, 1)}

    def _rows_of_log(self, table: pa.Table, time_s: Ints, sides: Sides, unnamed: dict[int | None, Bools]) -> _Rows:
        address, leaves = zip(*(self._addresses(table, side) for side in (0, 1)), strict=True)
        index = np.flatnonzero((unnamed[0] | unnamed[1]) & leaves[0] & leaves[1])
        ends = (address[0][index], address[1][index])
        service = self._services(table)[index]
        connection = _mixed(_mixed(ends[0], ends[1]) + self._secret, service << np.uint64(16))
        client_port = _numbers(table, "client_port")[index]
        connection = _mixed(connection, client_port.astype(np.uint64))
        tags = [sides[side] for side in (0, 1)]
        return _Rows(
            table,
            index,
            ends,
            service,
            _numbers(table, "protocol")[index],
            client_port,
            connection,
            time_s[index],
            (tags[0].gprocess_id[index] > 0, tags[1].gprocess_id[index] > 0),
            (unnamed[0][index], unnamed[1][index]),
            [
                Who(side.gprocess_id[index], side.auto_service_id[index], side.host_id[index], connection.copy())
                for side in tags
            ],
        )

    def _learn(self, rows: _Rows, keys: tuple[Keys, Keys], tally: Tally) -> Bools:
        """Claims of connections by those who own an end; the new ones also of the places that they tell of."""
        news = np.zeros(len(rows.index), np.bool_)
        for side in (0, 1):
            index = np.flatnonzero(rows.known[side])
            who, time_s = rows.who[side], rows.time_s
            index = index[self._connections.claim(keys[side][index], who.take(index), time_s[index], tally)]
            if len(index) == 0:
                continue
            news[index] = True
            point = rows.table.column("observation_point").take(pa.array(rows.index[index]))
            home = index[_is_in(point, _AT_HOME[side])]
            self._places.claim(self._home_key(rows.address[side][home]), who.take(home), time_s[home], tally)
            if side == 0:
                self._learn_clients(rows, home, tally)
            else:
                # Only a socket tells the address that it listens on; packets may still have that of a load balancer.
                index = index[_is_in(point, ("s-p",))]
                servers = self._server_key(rows.address[1][index], rows.service[index])
                self._places.claim(servers, who.take(index), time_s[index], tally)
        return news

    def _learn_clients(self, rows: _Rows, index: Ints, tally: Tally) -> None:
        """Claims of clients under their own addresses, for meters, which have no client port."""
        who, time_s = rows.who[0].take(index), rows.time_s[index]
        client, service = rows.address[0][index], rows.service[index]
        pair = self._pair_key(client, rows.address[1][index], service)
        self._calls.claim(self._socket_key(client, rows.protocol[index], rows.client_port[index]), who, time_s, tally)
        new = self._places.claim(pair, who, time_s, tally)
        self._places.claim(self._client_key(client[new], service[new]), who.take(new), time_s[new], tally)

    def _by_numbers(
        self, rows: _Rows, keys: tuple[Keys, Keys], left: tuple[Bools, Bools], news: Bools, tally: Tally
    ) -> None:
        """Ends of connections whose addresses were translated on the way.

        One call tells: what its numbers join is noted for both connections, and later calls need no numbers.
        """
        names = next((pair for pair in _NUMBERS if pair[0] in rows.table.column_names), None)
        if names is None:
            return
        first, second = (_numbers(rows.table, name)[rows.index].astype(np.uint64) for name in names)
        usable = (first > 0) & (second > 0)
        calls = _mixed(first << np.uint64(32) | second, self._secret ^ np.uint64(_NUMBERS.index(names)))
        for side in (0, 1):
            told = np.flatnonzero(news & rows.known[side] & left[1 - side] & usable)
            self._calls.claim(_side_key(calls[told], side), rows.who[side].take(told), rows.time_s[told], tally)
        for side in (0, 1):
            found = self._ask(self._calls, _side_key(calls, side), rows, side, left[side] & usable, (), tally)
            left[side][found] = False
            found = found[rows.who[side].gprocess[found] > 0]
            there = rows.who[side].take(found)
            self._connections.claim(keys[side][found], there, rows.time_s[found], tally)
            known = rows.known[1 - side][found]
            found, there = found[known], there.take(known)
            back = _side_key(there.link, 1 - side)
            self._connections.claim(back, rows.who[1 - side].take(found), rows.time_s[found], tally)

    def _by_real_address(self, rows: _Rows, keys: Keys, left: Bools, tally: Tally) -> None:
        """Clients of connections into which a load balancer wrote the client's own address and port (TOA)."""
        if "nat_real_port_0" not in rows.table.column_names:
            return
        address, port = (_numbers(rows.table, f"nat_real_{what}_0")[rows.index] for what in ("ip4", "port"))
        client = address.astype(np.uint64)
        wanted = left & (port > 0) & ~self._repeated(client, rows.time_s)
        # Another process may have had the port before: what was claimed before the flow began is not meant. Claims
        # that go on are renewed now and then only, and a new one may come too late to contradict an old one.
        new = _numbers(rows.table, "is_new_flow")[rows.index] == 1
        since_s = _seconds(rows.table, "start_time")[rows.index] - np.where(new, _CLOCKS_S, DUE_S + _CLOCKS_S)
        keys_there = self._socket_key(client, rows.protocol, port)
        found = self._ask(self._calls, keys_there, rows, 0, wanted, (), tally, since_s)
        left[found] = False
        found = found[(rows.who[0].gprocess[found] > 0) & ~new[found]]
        self._connections.claim(keys[found], rows.who[0].take(found), rows.time_s[found], tally)

    def _ask(
        self,
        claims: Claims,
        keys: Keys,
        rows: _Rows,
        side: int,
        wanted: Bools,
        ends: Sequence[int],
        tally: Tally,
        since_s: Ints | None = None,
    ) -> Ints:
        """Puts what the claims tell into `rows.who`, unless an address of these `ends` repeats in another network.

        Returns the rows that need no further question: they were answered, or who it was is ambiguous.
        """
        index = np.flatnonzero(wanted)
        who, ambiguous = claims.find(keys[index], rows.time_s[index], None if since_s is None else since_s[index])
        known = np.flatnonzero(who.service > 0)
        told, who = index[known], who.take(known)
        refused = np.zeros(len(told), np.bool_)
        for end in ends:
            refused |= self._repeated(rows.address[end][told], rows.time_s[told])
        answered, who = told[~refused], who.take(~refused)
        for stored, named in (
            (rows.who[side].gprocess, who.gprocess),
            (rows.who[side].service, who.service),
            (rows.who[side].host, who.host),
            (rows.who[side].link, who.link),
        ):
            stored[answered] = named
        tally.ambiguous += int(np.count_nonzero(ambiguous)) + int(np.count_nonzero(refused))
        return np.concatenate((told, index[ambiguous]))

    def _pair(
        self, table: pa.Table, time_s: Ints, unnamed: dict[int | None, Bools], tally: Tally
    ) -> dict[int | None, tuple[Ints, Who]]:
        (client, client_leaves), (server, server_leaves) = (self._addresses(table, side) for side in (0, 1))
        index = np.flatnonzero((unnamed[0] | unnamed[1]) & client_leaves & server_leaves)
        client, server, service, time_s = client[index], server[index], self._services(table)[index], time_s[index]
        repeated = self._repeated(client, time_s) | self._repeated(server, time_s)
        keys = (self._pair_key(client, server, service), self._server_key(server, service))
        found: dict[int | None, tuple[Ints, Who]] = {}
        for side in (0, 1):
            asked = np.flatnonzero(unnamed[side][index])
            found[side] = index[asked], self._place(keys[side][asked], time_s[asked], repeated[asked], tally)
        return found

    def _end(self, table: pa.Table, time_s: Ints, unnamed: Bools, tally: Tally) -> tuple[Ints, Who]:
        address, leaves = self._addresses(table, None)
        index = np.flatnonzero(unnamed & leaves)
        address, service, time_s = address[index], self._services(table)[index], time_s[index]
        is_server = _numbers(table, "role")[index] == 1
        keys = np.where(is_server, self._server_key(address, service), self._client_key(address, service))
        return index, self._place(keys, time_s, self._repeated(address, time_s), tally)

    def _place(self, keys: Keys, time_s: Ints, refused: Bools, tally: Tally) -> Who:
        who, ambiguous = self._places.find(keys, time_s)
        tally.ambiguous += int(np.count_nonzero(ambiguous | (refused & (who.service > 0))))
        for named in (who.gprocess, who.service, who.host):
            named[refused] = 0
        return who

    def _repeated(self, address: Keys, time_s: Ints) -> Bools:
        """Addresses that two hosts call their own: private ones that repeat in different networks."""
        return self._places.shared(self._home_key(address), time_s)

    def _home_key(self, address: Keys) -> Keys:
        return _mixed(address + self._secret, np.uint64(3))

    def _server_key(self, address: Keys, service: Keys) -> Keys:
        return _mixed(_mixed(address + self._secret, service), np.uint64(4))

    def _client_key(self, address: Keys, service: Keys) -> Keys:
        return _mixed(_mixed(address + self._secret, service), np.uint64(5))

    def _pair_key(self, client: Keys, server: Keys, service: Keys) -> Keys:
        return _mixed(_mixed(_mixed(client + self._secret, server), service), np.uint64(6))

    def _socket_key(self, client: Keys, protocol: Ints, port: Ints) -> Keys:
        return _mixed(_mixed(client + self._secret, (protocol << 16 | port).astype(np.uint64)), np.uint64(7))

    def _services(self, table: pa.Table) -> Keys:
        return (_numbers(table, "protocol") << 16 | _numbers(table, "server_port")).astype(np.uint64)

    def _addresses(self, table: pa.Table, side: int | None) -> tuple[Keys, Bools]:
        """Addresses of a side in 64 bits, and which of them mean the same on every host."""
        ip4 = _numbers(table, _sided("ip4", side))
        top = ip4 >> 24
        # 0/8, 127/8, link-local, multicast, reserved and broadcast.
        leaves = (top != 0) & (top != 127) & (top < 224) & (ip4 >> 16 != 0xA9FE)
        address = ip4.astype(np.uint64)
        is_ipv6 = _numbers(table, "is_ipv4") == 0
        if is_ipv6.any():
            which = np.flatnonzero(is_ipv6)
            taken = table.column(_sided("ip6", side)).take(pa.array(which)).combine_chunks()
            halves = np.frombuffer(taken.buffers()[1], ">u8")[2 * taken.offset : 2 * (taken.offset + len(taken))]
            high, low = halves.reshape(-1, 2).T.astype(np.uint64)
            address[which] = _mixed(high + self._secret, low)
            # ::/64 with the unspecified and the loopback address, fe80::/10, ff00::/8.
            leaves[which] = (high != 0) & (high >> np.uint64(54) != 0x3FA) & (high >> np.uint64(56) != 0xFF)
        return address, leaves


def _merged(tags: Side, found: tuple[Ints, Who], tally: Tally) -> Side:
    index, who = found
    fresh = (who.service > 0) & (tags.auto_service_id[index] == 0)
    if not fresh.any():
        return tags
    index, who = index[fresh], who.take(fresh)
    tally.found += len(index)
    of_process = np.where(who.gprocess > 0, PROCESS_TYPE, IP_TYPE)
    changed = {
        "host_id": who.host,
        "gprocess_id": who.gprocess,
        "auto_instance_id": who.gprocess,
        "auto_instance_type": of_process,
        "auto_service_id": who.service,
        "auto_service_type": np.full(len(index), PROCESS_TYPE),
    }
    columns = {}
    for name, values in changed.items():
        columns[name] = getattr(tags, name).copy()
        columns[name][index] = values
    return Side(**columns)


def _mixed(value: Keys, other: Keys | np.uint64) -> Keys:
    """One 64-bit hash of two numbers: the finalizer of MurmurHash3 (public domain, A. Appleby) over both."""
    mixed: Keys = value * np.uint64(0x9E3779B97F4A7C15) + other
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return mixed


def _side_key(keys: Keys, side: int) -> Keys:
    return _mixed(keys, np.uint64(side + 1))


def _is_in(values: pa.ChunkedArray, wanted: Sequence[str]) -> Bools:
    return np.asarray(pc.is_in(values, pa.array(wanted, values.type)).to_numpy(), np.bool_)


def _numbers(table: pa.Table, name: str) -> Ints:
    return np.asarray(table.column(name).to_numpy(), np.int64)


def _seconds(table: pa.Table, name: str) -> Ints:
    """A column of times in whole s since 1970."""
    micros = table.column(name).cast(pa.timestamp("us")).cast(pa.int64())
    return np.asarray(micros.to_numpy(), np.int64) // 1_000_000


def _sided(base: str, side: int | None) -> str:
    return base if side is None else f"{base}_{side}"
