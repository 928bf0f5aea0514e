"""Two agents, each of which knows its own processes; the server names the far ends. Tags alone, without a store."""

import ipaddress
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from deepflow.ingest.far_ends import FarEnds
from deepflow.ingest.tagging import Tags
from deepflow.resources import Tagger
from deepflow.resources.claims import KEEP_S, Tally
from deepflow.resources.tagger import IP_TYPE, PROCESS_TYPE, KnownProcess
from deepflow.schema import load
from tests.ingest.batches import wire_rows

TABLES = load().wire_tables()
NOW = int(time.time()) - 7200
CLIENT, SERVER, NODE = "10.1.0.5", "10.2.0.7", "192.0.2.1"
# Agent → its host; process n of agent a is gprocess 100 a + n; processes 1 and 2 are one service, 3 is another one.
HOSTS = {1: 11, 2: 12, 3: 13}
SERVICES = {1: 7, 2: 7, 3: 8}
A, B, C = HOSTS
TAGGER = Tagger(
    [KnownProcess(a, n, 1, None, 100 * a + n, 1000 * a + service) for a in HOSTS for n, service in SERVICES.items()],
    HOSTS,
)


@dataclass
class Seen:
    """One row: process id on the agent's host, 0 unknown."""

    client: int = 0
    server: int = 0
    point: str = "c-p"
    ends: tuple[str, str] = (CLIENT, SERVER)
    ports: tuple[int, int] = (40_000, 80)
    numbers: tuple[int, int] = (0, 0)
    at_s: int = 0
    protocol: int = 6
    role: int = 0
    new: bool = True
    real: tuple[str, int] = ("0.0.0.0", 0)
    """The client's own address and port, as a load balancer wrote them."""


@dataclass
class Told:
    """What the server stored of one side."""

    gprocess: int
    service: int
    host: int
    kinds: tuple[int, int] = field(default=(PROCESS_TYPE, PROCESS_TYPE))


NOBODY = Told(0, 0, 0, (IP_TYPE, IP_TYPE))


def process(agent: int, number: int) -> Told:
    return Told(100 * agent + number, 1000 * agent + SERVICES[number], HOSTS[agent])


def service(agent: int, number: int) -> Told:
    return Told(0, 1000 * agent + SERVICES[number], HOSTS[agent], (IP_TYPE, PROCESS_TYPE))


class Server:
    """Takes batches and tags them."""

    def __init__(self) -> None:
        self.far_ends = FarEnds()
        self.tally = Tally()

    def take(self, agent: int, table: str, *rows: Seen) -> list[tuple[Told, ...]]:
        """The sides of each row as stored: client and server, or the one end."""
        kind = TABLES[table][0]
        columns: dict[str, list[Any]] = {
            "time": [NOW + row.at_s for row in rows],
            "protocol": [row.protocol for row in rows],
            "server_port": [row.ports[1] for row in rows],
            "observation_point": [row.point for row in rows],
        }
        two_sided = "process_id_0" in kind.column
        for side in (0, 1):
            ips = [ipaddress.ip_address(row.ends[side]) for row in rows]
            pids = [(row.client, row.server)[side] for row in rows]
            suffix = f"_{side}" if two_sided else ""
            if not two_sided and side != rows[0].role:
                continue
            columns[f"process_id{suffix}"] = pids
            columns[f"ip4{suffix}"] = [int(ip) if ip.version == 4 else 0 for ip in ips]
            columns[f"ip6{suffix}"] = [ip.packed if ip.version == 6 else bytes(16) for ip in ips]
            columns["is_ipv4"] = [int(ip.version == 4) for ip in ips]
        if "role" in kind.column:
            columns["role"] = [row.role for row in rows]
        if "client_port" in kind.column:
            columns["client_port"] = [row.ports[0] for row in rows]
        for name, side in (("req_tcp_seq", 0), ("resp_tcp_seq", 1), ("syn_seq", 0), ("syn_ack_seq", 1)):
            if name in kind.column:
                columns[name] = [row.numbers[side] for row in rows]
        if "nat_real_port_0" in kind.column:
            columns["nat_real_ip4_0"] = [int(ipaddress.ip_address(row.real[0])) for row in rows]
            columns["is_new_flow"] = [int(row.new) for row in rows]
            columns["nat_real_port_0"] = [row.real[1] for row in rows]
        for name in ("start_time", "end_time"):
            if name in kind.column:
                columns[name] = [(NOW + row.at_s) * 1_000_000 for row in rows]
        sent = wire_rows(kind, len(rows), **columns)
        tags = Tags(kind, sent, TAGGER, agent)
        tags.ask(self.far_ends, self.tally)
        stored = tags.stored(1)
        assert stored.num_rows == len(rows)
        if "process_id_0" in stored.column_names:
            assert stored.column("process_id_0").to_pylist() == [row.client for row in rows], "the agent's own word"
        suffixes = ("_0", "_1") if two_sided else ("",)
        told = (_told(stored, suffix, columns[f"process_id{suffix}"]) for suffix in suffixes)
        return list(zip(*told, strict=True))


def _told(stored: Any, suffix: str, pids: list[int]) -> list[Told]:
    names = ("gprocess_id", "auto_service_id", "host_id", "auto_instance_type", "auto_service_type", "auto_instance_id")
    columns = [stored.column(name + suffix).to_pylist() for name in names]
    assert columns[0] == columns[5]
    if "tag_source_0" in stored.column_names:
        devices = (stored.column(f"l3_device_{what}{suffix}").to_pylist() for what in ("type", "id"))
        assert list(zip(*devices, strict=True)) == [(6 if host else 0, host) for host in columns[2]]
        told = [1 if pid else 2 if name else 0 for pid, name in zip(pids, columns[1], strict=True)]
        assert stored.column(f"tag_source{suffix}").to_pylist() == told
    return [Told(row[0], row[1], row[2], (row[3], row[4])) for row in zip(*columns, strict=True)]


@pytest.fixture
def server() -> Server:
    return Server()


LOGS = ("l7_flow_log", "l4_flow_log")


@pytest.mark.parametrize("first", LOGS)
@pytest.mark.parametrize("then", LOGS)
def test_the_second_of_two_agents_is_told_whoever_comes_first(server: Server, first: str, then: str) -> None:
    by_client, by_server = Seen(client=1), Seen(server=3, point="s-p")
    assert server.take(A, first, by_client) == [(process(A, 1), NOBODY)]
    assert server.take(B, then, by_server) == [(process(A, 1), process(B, 3))]
    assert server.take(A, then, by_client) == [(process(A, 1), process(B, 3))]
    other_way = Server()
    assert other_way.take(B, first, by_server) == [(NOBODY, process(B, 3))]
    assert other_way.take(A, then, by_client) == [(process(A, 1), process(B, 3))]
    assert other_way.take(B, then, by_server) == [(process(A, 1), process(B, 3))]
    assert (server.tally.found, other_way.tally.found) == (2, 2)
    assert server.tally.ambiguous == server.tally.evicted == 0 < server.tally.learned


def test_an_agent_in_between_is_told_both_ends(server: Server) -> None:
    server.take(A, "l7_flow_log", Seen(client=1))
    server.take(B, "l7_flow_log", Seen(server=3, point="s-p"))
    assert server.take(C, "l4_flow_log", Seen(point="rest")) == [(process(A, 1), process(B, 3))]


def test_ipv6_and_udp_are_ends_too_and_not_the_same_ones(server: Server) -> None:
    six = ("2001:db8::5", "2001:db8::7")
    server.take(B, "l7_flow_log", Seen(server=3, point="s-p", ends=six, protocol=17))
    assert server.take(A, "l7_flow_log", Seen(client=1, ends=six, protocol=17))[0][1] == process(B, 3)
    assert server.take(A, "l7_flow_log", Seen(client=1, ends=six))[0][1] == NOBODY
    assert server.take(A, "l7_flow_log", Seen(client=1, ends=six[::-1], protocol=17))[0][1] == NOBODY


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.251", "255.255.255.255", "::1", "::", "fe80::7", "ff02::fb"],
)
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_another_thing_on_each_host_never_leaves_it(server: Server, address: str, side: int) -> None:
    mine = "2001:db8::5" if ":" in address else CLIENT
    ends = (mine, address) if side else (address, mine)
    server.take(B, "l7_flow_log", Seen(server=3, point="s-p", ends=ends, numbers=(5, 6)))
    server.take(B, "l7_flow_log", Seen(client=2, ends=ends))
    assert server.take(A, "l7_flow_log", Seen(ends=ends, numbers=(5, 6))) == [(NOBODY, NOBODY)]
    assert server.take(A, "application_map.1s", Seen(ends=ends)) == [(NOBODY, NOBODY)]
    assert server.take(A, "application.1s", Seen(ends=ends, role=side)) == [(NOBODY,)]
    assert server.tally == Tally()


def test_a_server_is_known_by_its_socket_to_clients_never_seen_before(server: Server) -> None:
    server.take(B, "l7_flow_log", Seen(server=3, point="s-p"))
    new = Seen(client=2, ends=("10.9.9.9", SERVER), ports=(50_000, 80))
    assert server.take(A, "l7_flow_log", new) == [(process(A, 2), process(B, 3))]
    assert server.take(A, "l7_flow_log", Seen(client=2, ports=(1, 81)))[0][1] == NOBODY


def test_an_address_of_a_load_balancer_is_no_server(server: Server) -> None:
    """Packets on the way still have the address of the balancer; the next connection may go to someone else."""
    server.take(B, "l7_flow_log", Seen(server=3, point="s", ends=(CLIENT, NODE)))
    server.take(B, "l7_flow_log", Seen(client=1, server=3, point="c-p", ends=(CLIENT, NODE)))
    assert server.take(A, "l7_flow_log", Seen(client=1, ends=(CLIENT, NODE)))[0][1] == process(B, 3)
    assert server.take(A, "l7_flow_log", Seen(client=1, ends=(CLIENT, NODE), ports=(1, 80)))[0][1] == NOBODY


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("together", [False, True])
def test_two_hosts_that_claim_one_end_leave_it_unnamed(server: Server, end: int, together: bool) -> None:
    def claim(at_s: int) -> Seen:
        return Seen(server=3, point="s-p", at_s=at_s) if end else Seen(client=3, at_s=at_s)

    server.take(B, "l7_flow_log", claim(0))
    asked = (C, "l4_flow_log")
    assert server.take(*asked, Seen(point="rest"))[0][end] == process(B, 3)
    server.take(A, "l7_flow_log", claim(0))
    assert server.take(*asked, Seen(point="rest", at_s=1)) == [(NOBODY, NOBODY)]
    assert server.tally.ambiguous == 1
    later = KEEP_S + 1
    # The window moves with every claim that contradicts the one before.
    if together:
        server.take(A, "l7_flow_log", claim(200))
        server.take(B, "l7_flow_log", claim(201))
    else:
        server.take(B, "l7_flow_log", claim(31))
        later += 31
        server.take(B, "l7_flow_log", claim(later))
    wanted = NOBODY if together else process(B, 3)
    assert server.take(*asked, Seen(point="rest", at_s=later))[0][end] == wanted


def test_two_claims_in_one_batch_contradict_each_other_too(server: Server) -> None:
    server.take(B, "l7_flow_log", *[Seen(client=n % 3 + 1, ports=(n, 80)) for n in range(300) for _ in range(2)])
    several = [Seen(client=n, ports=(500, 80)) for n in (1, 3, 1, 1)]
    server.take(B, "l7_flow_log", *several)
    assert server.take(A, "l4_flow_log", Seen(point="rest", ports=(500, 80)))[0][0] == NOBODY
    named = server.take(A, "l4_flow_log", *[Seen(point="rest", ports=(n, 80)) for n in range(300)])
    assert [client for client, _ in named] == [process(B, n % 3 + 1) for n in range(300)]


def test_several_processes_of_one_service_are_that_service(server: Server) -> None:
    server.take(
        B, "l7_flow_log", Seen(server=1, point="s-p", ports=(1, 80)), Seen(server=2, point="s-p", ports=(2, 80))
    )
    assert server.take(A, "l7_flow_log", Seen(client=1, ports=(3, 80)))[0][1] == service(B, 1)
    assert server.take(A, "application_map.1s", Seen(client=1))[0][1] == service(B, 1)
    assert server.take(A, "l7_flow_log", Seen(client=1, ports=(2, 80)))[0][1] == process(B, 2)
    server.take(B, "l7_flow_log", Seen(server=3, point="s-p", ports=(4, 80)))
    assert server.take(A, "l7_flow_log", Seen(client=1, ports=(3, 80)))[0][1] == NOBODY


def test_a_private_address_that_two_hosts_call_their_own_names_no_other_connection(server: Server) -> None:
    bridge = ("172.17.0.3", "172.17.0.2")
    server.take(A, "l7_flow_log", Seen(server=1, point="s-p", ends=(CLIENT, bridge[1])))
    assert server.take(B, "l7_flow_log", Seen(client=1, ends=bridge))[0][1] == process(A, 1)
    server.take(B, "l7_flow_log", Seen(server=1, point="s-p", ends=(CLIENT, bridge[1]), ports=(1, 5432)))
    assert server.take(B, "l7_flow_log", Seen(client=1, ends=bridge))[0][1] == NOBODY
    assert server.take(B, "network.1s", Seen(ends=bridge, role=1)) == [(NOBODY,)]


def test_a_claim_expires_and_an_old_batch_is_not_told_of_later_ones(server: Server) -> None:
    server.take(B, "l7_flow_log", Seen(server=3, point="s-p", at_s=1000))
    for at_s, wanted in ((1000 + KEEP_S, process(B, 3)), (1001 + KEEP_S, NOBODY), (999 - KEEP_S, NOBODY)):
        assert server.take(A, "l7_flow_log", Seen(client=1, at_s=at_s))[0][1] == wanted
    # What was sent late says nothing against what is true now.
    server.take(A, "l7_flow_log", Seen(server=3, point="s-p", at_s=0))
    assert server.take(A, "l7_flow_log", Seen(client=1, at_s=1000))[0][1] == process(B, 3)
    # The port went to another process long after.
    server.take(B, "l7_flow_log", Seen(server=1, point="s-p", at_s=1001 + KEEP_S))
    assert server.take(A, "l7_flow_log", Seen(client=1, at_s=1001 + KEEP_S))[0][1] == process(B, 1)


@pytest.mark.parametrize("table", LOGS)
def test_numbers_join_what_address_translation_divides(server: Server, table: str) -> None:
    """The client calls a service address; the server sees the node that masquerades."""
    outside = Seen(client=1, ends=(CLIENT, NODE), numbers=(111, 222))
    inside = Seen(server=3, point="s-p", ends=(NODE, SERVER), ports=(7, 8080), numbers=(111, 222))
    assert server.take(A, table, outside) == [(process(A, 1), NOBODY)]
    assert server.take(B, table, inside) == [(process(A, 1), process(B, 3))]
    assert server.take(A, table, outside) == [(process(A, 1), process(B, 3))]
    # The connection is known now, its later calls need no numbers.
    for other in LOGS:
        assert server.take(B, other, Seen(server=3, ends=(NODE, SERVER), ports=(7, 8080))) == [
            (process(A, 1), process(B, 3))
        ]
    # One call told both agents, though the client's one never came second with it.
    late = Server()
    late.take(A, table, outside)
    late.take(B, table, inside)
    again = Seen(client=1, ends=outside.ends, numbers=(333, 444), at_s=5)
    assert late.take(A, table, again) == [(process(A, 1), process(B, 3))]
    # Another connection to the service address may lead elsewhere.
    assert server.take(A, table, Seen(client=1, ends=(CLIENT, NODE), ports=(9, 80), numbers=(5, 5)))[0][1] == NOBODY


def test_numbers_that_are_missing_or_claimed_twice_join_nothing(server: Server) -> None:
    ends = (NODE, SERVER)
    for numbers in ((1, 0), (0, 1), (0, 0)):
        server.take(A, "l7_flow_log", Seen(client=1, numbers=numbers))
        assert server.take(B, "l7_flow_log", Seen(server=3, point="s-p", ends=ends, numbers=numbers))[0][0] == NOBODY
    server.take(A, "l7_flow_log", Seen(client=1, ports=(1, 80), numbers=(7, 7)))
    server.take(C, "l7_flow_log", Seen(client=1, ends=("10.4.0.1", "10.4.0.2"), numbers=(7, 7)))
    assert server.take(B, "l7_flow_log", Seen(server=3, ends=ends, numbers=(7, 7), ports=(1, 2)))[0][0] == NOBODY


@pytest.mark.parametrize("pairs, ends", [("application_map.1s", "application.1s"), ("network_map.1s", "network.1s")])
def test_meters_have_no_client_port_and_are_named_where_one_process_fits(server: Server, pairs: str, ends: str) -> None:
    server.take(A, "l7_flow_log", Seen(client=1))
    server.take(B, "l7_flow_log", Seen(server=3, point="s-p"))
    assert server.take(A, pairs, Seen(client=1)) == [(process(A, 1), process(B, 3))]
    assert server.take(B, pairs, Seen(server=3, point="s-p")) == [(process(A, 1), process(B, 3))]
    assert server.take(B, ends, Seen(role=0)) == [(process(A, 1),)]
    assert server.take(A, ends, Seen(role=1)) == [(process(B, 3),)]
    server.take(A, "l7_flow_log", Seen(client=3, ports=(40_001, 80)))
    assert server.take(B, pairs, Seen(server=3, point="s-p")) == [(NOBODY, process(B, 3))]
    assert server.take(B, ends, Seen(role=0)) == [(NOBODY,)]


def test_a_client_behind_a_load_balancer_is_known_by_the_address_that_it_wrote(server: Server) -> None:
    balancer = "192.0.2.99"
    server.take(A, "l7_flow_log", Seen(client=1, ends=(CLIENT, "198.51.100.1")))
    behind = Seen(server=3, point="s", ends=(balancer, SERVER), ports=(50_000, 80))
    assert server.take(B, "l4_flow_log", behind) == [(NOBODY, process(B, 3))]
    written = replace(behind, real=(CLIENT, 40_000))
    assert server.take(B, "l4_flow_log", replace(written, real=(CLIENT, 40_001))) == [(NOBODY, process(B, 3))]
    assert server.take(B, "l4_flow_log", replace(written, protocol=17)) == [(NOBODY, process(B, 3))]
    assert server.take(B, "l4_flow_log", written) == [(process(A, 1), process(B, 3))]
    # Who had the port long before is somebody else.
    assert server.take(B, "l4_flow_log", replace(written, at_s=10)) == [(NOBODY, process(B, 3))]
    # What goes on for minutes is known in rows that have no such address as well.
    by_socket = replace(behind, point="s-p", at_s=20)
    assert server.take(B, "l7_flow_log", by_socket) == [(NOBODY, process(B, 3))]
    assert server.take(B, "l4_flow_log", replace(written, new=False, at_s=20)) == [(process(A, 1), process(B, 3))]
    assert server.take(B, "l7_flow_log", by_socket) == [(process(A, 1), process(B, 3))]
    # An address that two hosts call their own names nobody.
    server.take(C, "l7_flow_log", Seen(client=2, ports=(40_009, 80)))
    other = replace(written, ports=(50_001, 80))
    assert server.take(B, "l4_flow_log", other)[0][0] == NOBODY


def test_a_flood_of_connections_stays_within_the_table_and_is_counted(server: Server) -> None:
    rows = 40_000
    kind = TABLES["l7_flow_log"][0]
    for batch in range(10):
        columns = {
            "time": np.full(rows, NOW + batch),
            "process_id_0": np.ones(rows, int),
            "protocol": np.full(rows, 6),
            "ip4_0": np.arange(rows) + (batch << 20) + (10 << 24),
            "ip4_1": np.full(rows, 0x0A000001),
            "is_ipv4": np.ones(rows, int),
            "req_tcp_seq": np.arange(rows) + 1 + batch * rows,
            "resp_tcp_seq": np.ones(rows, int),
            "observation_point": ["c-nd"] * rows,
        }
        Tags(kind, wire_rows(kind, rows, **columns), TAGGER, A).ask(server.far_ends, server.tally)
    # Of four keys a row some found no way in a full set of their own batch.
    assert 10 * rows < server.tally.learned <= 4 * 10 * rows
    assert server.tally.evicted >= server.tally.learned - (1 << 18) * 2 - (1 << 17)
    # The youngest are still known.
    found = server.take(B, "l4_flow_log", *[Seen(ends=(f"10.144.0.{n}", "10.0.0.1"), ports=(0, 0)) for n in range(99)])
    assert sum(client == process(A, 1) for client, _ in found) > 60
