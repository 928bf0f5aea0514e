"""Network flows and meters by a generator, stored the way an agent's are: batches, tags, roll-up in several runs."""

import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepflow.ingest import Ingest
from deepflow.resources import AgentIdentity, Interface, Process, Resources
from deepflow.schema import Schema
from deepflow.store import Store
from tests.ingest.batches import ipc, wire_rows

BEGIN = int(time.time()) // 3600 * 3600 - 7200
MINUTES = 4
RANGE = f"time >= {BEGIN} AND time < {BEGIN + MINUTES * 60}"
PROCESSES = {101: "web", 102: "api", 103: "db"}
NIC = 0x0A0B0C0D
CLOSE_TYPES = (0, 1, 2, 3, 5, 7, 8, 9, 10, 11, 13, 15, 17, 18, 19, 20)
DELAYS = ("rtt", "rtt_client", "rtt_server", "srt", "art", "cit", "rrt")
Columns = dict[str, np.ndarray]


@dataclass
class Network:
    """What was sent, by column."""

    flows: Columns
    ends: Columns
    pairs: Columns


def _delays(random: np.random.Generator, count: int, names: tuple[str, ...]) -> Columns:
    found: Columns = {}
    for name in names:
        number = random.choice([0, 0, 1, 2, 5], count)
        largest = np.where(number > 0, random.integers(1, 30_000, count), 0)
        found[f"{name}_count"], found[f"{name}_max"] = number, largest
        found[f"{name}_sum"] = (largest * np.maximum(number, 1) * 0.75 * (number > 0)).round(3)
    return found


def _counters(random: np.random.Generator, count: int) -> Columns:
    packets = {f"packet_{way}": random.integers(0, 50, count) for way in ("tx", "rx")}
    return packets | {
        **{f"byte_{way}": packets[f"packet_{way}"] * random.integers(60, 1500, count) for way in ("tx", "rx")},
        **{f"{layer}_byte_{way}": random.integers(0, 9_000, count) for layer in ("l3", "l4") for way in ("tx", "rx")},
        **{f"retrans_{way}": random.integers(0, 3, count) for way in ("tx", "rx")},
        **{f"zero_win_{way}": random.integers(0, 3, count) for way in ("tx", "rx")},
        **{f"ooo_{way}": random.integers(0, 3, count) for way in ("tx", "rx")},
        **{name: random.integers(0, 4, count) for name in ("syn_count", "synack_count")},
        **{name: random.integers(0, 2, count) for name in ("retrans_syn", "retrans_synack")},
        **{name: random.integers(0, 6, count) for name in ("l7_request", "l7_response")},
        **{name: random.integers(0, 2, count) for name in ("l7_client_error", "l7_server_error")},
        "direction_score": random.integers(0, 256, count),
    }  # fmt: skip


def _flows(random: np.random.Generator, count: int = 3000) -> Columns:
    end = BEGIN + random.integers(0, MINUTES * 60, count)
    close_type = random.choice(CLOSE_TYPES, count)
    measured = random.random(count) < 0.6
    tunnelled = random.random(count) < 0.3
    found = _counters(random, count) | _delays(random, count, ("srt", "art", "cit", "rrt"))
    for name in ("rtt", "rtt_client", "rtt_server", "tls_rtt"):
        found[name] = np.where(measured, random.integers(1, 50_000, count), 0).astype(float)
    return found | {
        "time": end,
        "_id": (np.uint64(BEGIN) << np.uint64(32)) + np.arange(count, dtype=np.uint64),
        "start_time": end * 1_000_000 - 500_000,
        "end_time": end * 1_000_000,
        "close_type": close_type,
        "protocol": np.where((close_type == 3) | (close_type == 5), random.choice([6, 17], count), 6),
        "is_new_flow": random.integers(0, 2, count),
        "duration": np.where(measured, random.integers(1, 9_000_000, count), 0),
        "process_id_0": random.choice([0, 101, 102], count),
        "process_id_1": random.choice([0, 102, 103], count),
        "is_ipv4": np.ones(count, int),
        "ip4_0": 0x0A000000 + random.integers(0, 4, count),
        "ip4_1": 0x0A010000 + random.integers(0, 4, count),
        "mac_0": 0x0242AC000000 + random.integers(0, 3, count),
        "tcp_flags_bit_0": random.integers(0, 32, count),
        "tunnel_type": np.where(tunnelled, 1, 0),
        "tunnel_is_ipv4": tunnelled.astype(int),
        "tunnel_tx_ip4_0": np.where(tunnelled, 0xC0A80001 + random.integers(0, 2, count), 0),
        "capture_nic": random.choice([0, NIC], count),
        "nat_real_ip4_0": np.where(random.random(count) < 0.2, 0x01020304, 0),
        "observation_point": random.choice(["c", "c-nd", "s-nd", "s"], count),
    }


def _meters(random: np.random.Generator, count: int, pair: bool) -> Columns:
    # Every seventh second stays empty on purpose: Min must see it as 0.
    seconds = np.arange(MINUTES * 60)
    found = _counters(random, count) | _delays(random, count, DELAYS)
    found |= {
        name: random.integers(0, 3, count)
        for name in (
            "new_flow", "closed_flow", "client_source_port_reuse", "server_syn_miss", "client_establish_other_rst",
            "client_ack_miss", "server_reset", "server_establish_other_rst", "client_rst_flow", "server_rst_flow",
            "server_queue_lack", "tcp_timeout", "client_half_close_flow", "server_half_close_flow", "l7_timeout",
        )
    }  # fmt: skip
    sides = ("_0", "_1") if pair else ("",)
    return found | {
        "time": np.sort(BEGIN + random.choice(seconds[seconds % 7 != 3], count)),
        "flow_load": random.integers(0, 40, count),
        "protocol": np.full(count, 6),
        "is_ipv4": np.ones(count, int),
        "server_port": random.choice([80, 5432], count),
        "observation_point": random.choice(["c", "s"], count),
        **({"capture_nic": np.where(np.arange(count) % 3 == 0, NIC, 0)} if pair else {}),
        **{f"process_id{side}": random.choice([0, 101, 102, 103], count) for side in sides},
        **{f"ip4{side}": 0x0A000000 + random.integers(0, 2, count) for side in sides},
    }


def _part(columns: Columns, chosen: np.ndarray) -> dict[str, Any]:
    return {name: values[chosen].tolist() for name, values in columns.items()}


def store_network(store: Store, schema: Schema, folder: Path) -> Network:
    """Sends the rows in batches that cut through minutes, rolling up in between."""
    random = np.random.default_rng(4)
    network = Network(_flows(random), _meters(random, 5000, pair=False), _meters(random, 5000, pair=True))
    resources = Resources(f"sqlite:///{folder}/metadata.sqlite", store)
    agent = resources.register_agent(AgentIdentity("host", "machine", "boot", "", "", ""))
    resources.upsert_processes(
        agent, [Process(pid, 1, None, name, name, name, "", "", 1) for pid, name in PROCESSES.items()]
    )
    resources.replace_interfaces(agent, [Interface(NIC, "eth0", "physical", 0, 0, "")])
    ingest = Ingest(store, resources, schema, 3600, 3600, name_far_ends=False)
    sent = {"l4_flow_log": network.flows, "network.1s": network.ends, "network_map.1s": network.pairs}
    # An agent sends a second in one batch; batches cut through minutes, and come late.
    for number, part in enumerate((2, 0, 4, 1, 3)):
        for name, columns in sent.items():
            columns["agent_id"] = np.full(len(columns["time"]), agent)
            chosen = np.flatnonzero((columns["time"] - BEGIN) * 5 // (MINUTES * 60) == part)
            rows = wire_rows(schema.wire_tables()[name][0], len(chosen), **_part(columns, chosen))
            ingest.submit(name, agent, secrets.randbits(64), 1, ipc(rows))
        if number % 2 == 0:
            ingest.roll_up()
    resources.flush_names()
    ingest.close()
    resources.close()
    return network
