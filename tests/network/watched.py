"""A topology, and what DeepFlow says of it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from tests.conftest import Running
from tests.e2e.conftest import eventually, query
from tests.network.topology import Topology

#: What the agent captures: the pods' and the nodes' interfaces, and both ends of the pods' cables.
INTERFACES = "^(eth0|veth[ab][12]|cni0|vxlan0)$"
PACKET = 0
#: Counters of packets that were seen by no flow.
DROPPED = ("packet/packets_dropped", "packet/packets_throttled")


class Watch(Protocol):
    """Starts server and agent for a topology that runs."""

    def __call__(self, made: Topology, interfaces: str = INTERFACES, ring_mib: int = 0) -> Watched:
        """`interfaces`: a regular expression of those that are captured; `ring_mib`: of each ring, 0 as by default."""


@dataclass
class Watched:
    """Queries about the topology; addresses are the topology's, so that nothing else on this machine is counted."""

    topology: Topology
    server: Running
    agent: Running

    @property
    def url(self) -> str:
        return self.server.url

    def query(self, sql: str, db: str = "flow_log", precision: str | None = None) -> list[dict[str, Any]]:
        """Rows of a statement in DeepFlow's dialect."""
        return query(self.url, sql, db, precision)

    def calls(self, word: str, columns: str, where: str = "") -> list[dict[str, Any]]:
        """Rows of the request log whose resource has `word`."""
        more = f" AND {where}" if where else ""
        return self.query(
            f"SELECT {columns} FROM l7_flow_log WHERE request_resource LIKE '*{word}*'{more} LIMIT 100000"
        )

    def trace(self, row_id: str) -> list[dict[str, Any]]:
        """Spans of the trace of a row of the request log, the root first."""
        now = int(time.time())
        body = {"_id": row_id, "TIME_START": now - 600, "TIME_END": now + 1}
        answer = httpx.post(f"{self.url}/v1/stats/querier/L7FlowTracing", json=body, trust_env=False, timeout=60).json()
        assert answer["OPT_STATUS"] == "SUCCESS", answer
        spans: list[dict[str, Any]] = answer["DATA"]["tracing"]
        return spans

    def map(self) -> list[dict[str, Any]]:
        """Edges of the service map with the names of both ends."""
        now = int(time.time())
        params = {"from": now - 600, "to": now + 1}
        answer = httpx.get(f"{self.url}/v1/web/map", params=params, trust_env=False, timeout=60).json()
        names = {node["id"]: node["name"] for node in answer["nodes"]}
        return [edge | {"client": names[edge["source"]], "server": names[edge["target"]]} for edge in answer["edges"]]

    def interfaces(self) -> dict[str, str]:
        """`capture_nic`, as rows show it → "place/interface" of everything in the topology, as the agent told."""
        places = {place.inode: place.name for place in self.topology.places()}
        arguments = self.server.arguments
        metadata = Path(arguments[arguments.index("--data") + 1]) / "metadata.sqlite"
        with closing(sqlite3.connect(f"file:{metadata}?mode=ro", uri=True)) as database:
            told = database.execute("SELECT capture_nic, name, netns FROM interfaces").fetchall()
        return {nic.to_bytes(4).hex(":"): f"{places[netns]}/{name}" for nic, name, netns in told if netns in places}

    def counters(self) -> dict[str, int]:
        """The agent's counters as the server knows them."""
        answer = httpx.get(f"{self.url}/v1/web/agents", trust_env=False, timeout=60).json()
        counters: dict[str, int] = answer["agents"][0]["counters"] if answer["agents"] else {}
        return counters

    def dropped(self) -> int:
        """Packets that the kernel or the agent gave up so far, by the agent's own counters."""
        return sum(self.counters().get(name, 0) for name in DROPPED)

    def await_rows(self, word: str, least: int, where: str = "", seconds: float = 60) -> None:
        """Wait until the request log has this many rows with `word`."""
        found = eventually(lambda: len(self.calls(word, "_id", where)) >= least, seconds)
        assert found, f"{len(self.calls(word, '_id', where))} of {least} rows with {word!r}; {self.agent.said()}"
