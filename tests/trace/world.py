"""A small world of processes that call one another: it knows who caused what, and yields the rows agents would see."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from deepflow.trace import Row, Trace
from deepflow.trace.row import PACKET, Side

HTTP1, MYSQL, REDIS, DNS = 20, 60, 80, 120
BEGIN_US = 1_700_000_000_000_000
ON_THE_WAY = ("c", "c-nd", "s-nd", "s")


@dataclass(frozen=True)
class Program:
    """A process; its `agent` is the host it runs on. What is not `seen` leaves no row at its own end."""

    name: str
    pid: int
    port: int
    protocol: int = HTTP1
    agent: int = 1
    seen: bool = True

    @property
    def ip(self) -> str:
        return f"10.0.0.{self.agent}"


@dataclass
class Connection:
    """A keep-alive connection: two flows, one at each end, and numbers that count up."""

    client_port: int
    flows: tuple[int, int]
    request_seq: int
    response_seq: int
    busy: list[tuple[int, int]] = field(default_factory=list)

    def free(self, start: int, end: int) -> bool:
        return all(end < begin or start > stop for begin, stop in self.busy)


@dataclass(frozen=True)
class Arrival:
    """What a request became at its server: the row of the server (if seen), its context, and its time."""

    row_id: int | None
    context: int
    start: int
    end: int


class World:
    """Rows so far, and the true parent of each (None for a root)."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.rows: list[Row] = []
        self.parents: dict[int, int | None] = {}
        self._pools: dict[tuple[int, int], list[Connection]] = {}
        self._ports: set[int] = set()

    def call(
        self,
        client: Program,
        server: Program,
        start: int,
        end: int,
        cause: Arrival | None = None,
        *,
        answered: bool = True,
        packets: int = 0,
        translated: bool = False,
    ) -> Arrival:
        """`client` asks `server` in [start, end] µs; `cause` is the request it works on, None for a load generator.

        `translated`: both ends are rewritten behind the client's interface, as a service address and masquerade do.
        """
        random = self.random
        connection = self._connection(client, server, start, end)
        udp = server.protocol == DNS
        resource = f"/{server.name}/{random.randrange(5)}"
        context = random.getrandbits(63) | 1
        common: dict[str, Any] = {
            **{"type": 2 if answered else 0, "protocol": 17 if udp else 6, "l7_protocol": server.protocol},
            **{"client_port": connection.client_port, "server_port": server.port, "request_resource": resource},
            **{"req_tcp_seq": 0 if udp else connection.request_seq},
            **{"resp_tcp_seq": connection.response_seq if answered and not udp else 0},
            "request_id": (random.randrange(1 << 16) if translated else random.choice((1, 2, 3))) if udp else None,
            "client": Side(process_id=client.pid, process_kname=client.name, ip=client.ip),
            "server": Side(process_id=server.pid, process_kname=server.name, ip=server.ip),
        }
        connection.request_seq = (connection.request_seq + random.randrange(1, 2000)) % (1 << 32) or 1
        connection.response_seq = (connection.response_seq + random.randrange(1, 9000)) % (1 << 32) or 1
        places = sorted(random.sample(ON_THE_WAY, packets), key=ON_THE_WAY.index)
        rewritten: dict[str, Any] = {}
        if translated:
            ports = {"client_port": self._unused_port(), "server_port": server.port + 1000}
            ends = {
                "client": replace(common["client"], ip="10.0.0.201"),
                "server": replace(common["server"], ip="10.0.0.202"),
            }
            rewritten = ports | ends
        asked = cause.context if cause else 0
        above = cause.row_id if cause else None
        step = max(1, (end - start) // 100)
        sightings = [("c-p", client.agent, asked)] if client.seen else []
        sightings += [(place, client.agent if place[0] == "c" else server.agent, 0) for place in places]
        sightings += [("s-p", server.agent, context)] if server.seen else []
        # Where the client was not seen nobody knows the cause of what was seen further on.
        above = above if client.seen else None
        for number, (place, agent, causal) in enumerate(sightings):
            begin, stop = start + number * step, end - number * step
            row = Row(
                ids=(len(self.rows) + 1,),
                start_us=begin,
                end_us=stop if answered else begin,
                observation_point=place,
                signal_source=3 if place.endswith("-p") else PACKET,
                agent_id=agent,
                flow_id=connection.flows[place[0] == "s"],
                syscall_trace_id_request=causal,
                syscall_trace_id_response=causal if answered else 0,
                **(common if place in ("c-p", "c") else common | rewritten),
            )
            self.rows.append(row)
            self.parents[row.id] = above
            above = row.id
        inset = 4 * step
        return Arrival(above if server.seen else None, context, start + inset, end - inset)

    def _connection(self, client: Program, server: Program, start: int, end: int) -> Connection:
        pool = self._pools.setdefault((client.pid, server.pid), [])
        for connection in pool:
            if server.protocol != DNS and connection.free(start, end) and self.random.random() < 0.9:
                break
        else:
            connection = Connection(
                self._unused_port(),
                (self.random.getrandbits(60) | 1, self.random.getrandbits(60) | 1),
                self._number("req_tcp_seq"),
                self.random.randrange(1, 1 << 32),
            )
            pool.append(connection)
        connection.busy.append((start, end))
        return connection

    def _unused_port(self) -> int:
        while (port := self.random.randrange(32768, 61000)) in self._ports:
            pass
        self._ports.add(port)
        return port

    def _number(self, name: str) -> int:
        """A first sequence number; now and then the one that another connection has already."""
        if self.rows and self.random.random() < 0.3:
            return getattr(self.random.choice(self.rows), name) or 1
        return self.random.randrange(1, 1 << 32)

    def shuffled(self) -> list[Row]:
        rows = list(self.rows)
        self.random.shuffle(rows)
        return rows

    def tree_of(self, row_id: int) -> dict[int, int | None]:
        """Row → parent of the true tree that holds the row."""
        root = self.root(row_id)
        return {row: parent for row, parent in self.parents.items() if self.root(row) == root}

    def root(self, row_id: int) -> int:
        while (parent := self.parents[row_id]) is not None:
            row_id = parent
        return row_id


def shape(trace: Trace) -> dict[int, int | None]:
    """Row → parent of an assembled tree."""
    return {span.row.id: span.parent.row.id if span.parent else None for span in trace.spans}


def random_forest(seed: int, requests: int = 3) -> World:
    """Requests of a load generator through random programs: nested, parallel, repeated, unanswered, partly unseen."""
    world = World(seed)
    random = world.random
    hidden = random.choice((0.0, 0.0, 0.25))
    programs = [
        Program(
            f"p{at}",
            100 + at,
            5000 + at,
            random.choice((HTTP1, HTTP1, REDIS, MYSQL, DNS)),
            agent=random.randint(1, 3),
            seen=random.random() >= hidden,
        )
        for at in range(6)
    ]
    generator = Program("load", 99, 0, seen=random.random() < 0.7)

    def work(arrival: Arrival, who: Program, depth: int) -> None:
        if depth == 4 or who.protocol != HTTP1:
            return
        length = arrival.end - arrival.start
        parallel = random.random() < 0.4
        at = arrival.start + length // 20
        for _ in range(random.choice((0, 1, 1, 2, 3))):
            target = random.choice([program for program in programs if program is not who])
            took = length // 5
            attempts = 2 if random.random() < 0.2 else 1
            for attempt in range(attempts):
                begin = at + random.randrange(1, 20)
                lost = attempt + 1 < attempts or random.random() < 0.1
                packets = random.choice((0, 0, 1, 3))
                translated = not lost and random.random() < 0.3
                below = world.call(
                    *(who, target, begin, begin + took, arrival),
                    answered=not lost,
                    packets=packets,
                    translated=translated,
                )
                work(below, target, depth + 1)
                at = at if parallel and attempt + 1 == attempts else begin + took // 2

    for number in range(requests):
        start = BEGIN_US + number * random.choice((300, 3_000_000))
        target = random.choice([program for program in programs if program.protocol == HTTP1] or programs)
        work(world.call(generator, target, start, start + 1_000_000, packets=random.choice((0, 2))), target, 0)
    return world


def shop(seed: int, requests: int = 50) -> World:
    """Concurrent requests through nginx → api → cart → stock, redis, mysql, with a name looked up by the api."""
    world = World(seed)
    random = world.random
    names = ("nginx", "api", "cart", "stock")
    nginx, api, cart, stock = (Program(name, 10 + at, 8000 + at) for at, name in enumerate(names))
    redis, mysql = Program("redis", 20, 6379, REDIS), Program("mysqld", 21, 3306, MYSQL)
    names_server = Program("named", 22, 53, DNS)
    for _ in range(requests):
        start = BEGIN_US + random.randrange(20_000)
        length = random.randrange(200_000, 400_000)
        entry = world.call(Program("wrk", 1, 0), nginx, start, start + length)
        forwarded = world.call(nginx, api, entry.start, entry.end, entry)
        third = (forwarded.end - forwarded.start) // 3
        world.call(api, names_server, forwarded.start, forwarded.start + third // 4, forwarded)
        inner = world.call(api, cart, forwarded.start + third, forwarded.end, forwarded)
        part = (inner.end - inner.start) // 4
        # The three are asked at the same time.
        world.call(cart, stock, inner.start + 1, inner.start + 3 * part, inner)
        world.call(cart, redis, inner.start + 2, inner.start + part, inner)
        world.call(cart, mysql, inner.start + 3, inner.start + 2 * part, inner)
    return world
