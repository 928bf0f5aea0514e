"""The agent's loop: once a second it takes what the core has and hands it to the outbox."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from deepflow import __version__, _core
from deepflow.agent.guard import Guard, MemoryExceeded
from deepflow.agent.identity import Identity
from deepflow.agent.interfaces import InterfaceTable
from deepflow.agent.outbox import Entry, Outbox, Unavailable, new_batch_id
from deepflow.agent.processes import Active, ProcessTable
from deepflow.agent.settings import AgentSettings
from deepflow.agent.sockets import listening_pids, scan
from deepflow.agent.transport import Transport

log = logging.getLogger(__name__)
_DRAIN_INTERVAL_S = 1.0
_PROCESS_INTERVAL_S = 10.0
_ARROW = "application/vnd.apache.arrow.stream"


class Collector:
    """Owns the core, the process table and the outbox of one agent."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._proc = settings.inputs.proc.proc_dir_path
        self._stop = threading.Event()
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._identity = Identity.load(settings.state_dir)
        token = settings.token_file.read_text().strip() if settings.token_file else ""
        self._transport = Transport(settings.server, token)
        self._processes = ProcessTable(
            self._proc, self._identity.boot_time_us, frozenset(settings.inputs.proc.process_blacklist)
        )
        self._interfaces = InterfaceTable(self._proc, self._processes.read)
        self._listeners: list[dict[str, Any]] = []
        ignored = [os.getpid(), *self._local_server()]
        self._core = _core.Agent(settings.core_config(ignored, self._identity.agent_id, self._server_ends()))
        self._hooks: list[dict[str, str]] = []
        self._registered = False
        self._retries = 0
        self._last_counters: dict[str, dict[str, float]] = {}
        self._outbox: Outbox | None = None

    def stop(self) -> None:
        """Make `run` return; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Observe until `stop`.

        Raises:
            OSError: the kernel or the privileges do not allow it; one sentence.
            MemoryExceeded: the memory limit was reached.
        """
        nice = self._settings.global_.tunning.process_scheduling_priority
        if nice:  # before the core's thread begins, which inherits it
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        self._register()
        self._hooks = json.loads(self._core.start())["hooks"]
        for hook in self._hooks:
            log.info("%s: %s%s", hook["what"], hook["chosen"], f" ({hook['lost']})" if hook["lost"] else "")
        box = self._settings.outbox
        self._outbox = Outbox(
            self._transport,
            self._settings.state_dir / "outbox",
            memory_bytes=box.memory << 20,
            disk_bytes=box.disk << 20,
        )
        limits = self._settings.global_.limits
        guard = Guard(
            limits.max_millicpus,
            limits.max_memory,
            self._settings.outputs.flow_log.throttles.l7_throttle,
            self._core.set_throttle,
        )
        try:
            self._loop(guard)
        finally:
            self._collect(flush_all=True)
            self._report({})
            self._core.stop()
            self._outbox.close()
            self._transport.close()

    def _loop(self, guard: Guard) -> None:
        proc = self._settings.inputs.proc
        self._seed()
        report_s = self._settings.global_.self_monitoring.interval
        now = time.monotonic()
        next_processes, next_sockets, next_report = now, now + proc.socket_info_sync_interval, now + report_s
        while not self._stop.wait(_DRAIN_INTERVAL_S):
            now = time.monotonic()
            if not self._registered or self._refused_lately():
                self._register()
            if now >= next_processes:
                self._processes.refresh()
                self._tell_interfaces()
                next_processes = now + _PROCESS_INTERVAL_S
            if proc.socket_info_sync_interval and now >= next_sockets:
                self._seed()
                next_sockets = now + proc.socket_info_sync_interval
            self._collect(flush_all=False)
            if now >= next_report:
                self._report(guard.check())
                next_report = now + report_s

    def _collect(self, *, flush_all: bool) -> None:
        """Rows of the last second, after the processes that they name."""
        assert self._outbox is not None
        batches = self._core.drain(flush_all)
        self._processes.seen(json.loads(self._core.active_processes()))
        self._processes.applied(json.loads(self._core.process_changes()))
        changed = self._processes.changed()
        if changed:
            # Whose they are says the header at the time of sending: the id may come, or change, while this waits.
            body = json.dumps({"processes": changed}).encode()
            self._outbox.put(Entry("/v1/agent/processes", new_batch_id(), 0, "application/json", body))
        for table, rows, data in batches:
            self._outbox.put(Entry(f"/v1/ingest/{table}", new_batch_id(), rows, _ARROW, data))

    def _tell_interfaces(self) -> None:
        """Names of the interfaces whose packets are read, when they changed."""
        assert self._outbox is not None
        changed = self._interfaces.changed(json.loads(self._core.interfaces()), self._listeners)
        if changed is not None:
            body = json.dumps({"interfaces": changed}).encode()
            self._outbox.put(Entry("/v1/agent/interfaces", new_batch_id(), 0, "application/json", body))

    def _register(self) -> None:
        """Get the agent id; a server that is away is asked again every second, capture goes on meanwhile."""
        kernel = os.uname().release
        identity = {
            "name": socket.gethostname(),
            "machine_id": self._identity.machine_id,
            "boot_id": self._identity.boot_id,
            "kernel": kernel,
            "version": __version__,
            "ip": _own_address(),
        }
        try:
            agent_id = self._transport.register(identity)
        except Unavailable as error:
            self._transport.agent_id = self._identity.agent_id
            log.warning("The server is not there yet: %s", error)
            return
        self._registered = True
        if agent_id != self._identity.agent_id:
            self._identity = self._identity.with_agent_id(agent_id, self._settings.state_dir)
            self._core.set_agent_id(agent_id)
        self._processes.repeat()
        self._interfaces.repeat()

    def _refused_lately(self) -> bool:
        """The server did not take an entry since the last look: it may be one that does not know this agent."""
        assert self._outbox is not None
        retries, self._retries = self._retries, self._outbox.counters()["retries"]
        return self._retries > retries

    def _seed(self) -> None:
        listeners, established = scan(self._proc)
        self._listeners = listeners
        self._core.listeners(json.dumps(listeners))
        self._core.sockets(json.dumps(established))
        if any(hook["what"] == "sockets" and hook["chosen"] == "none" for hook in self._hooks):
            # Nothing else tells of the processes that rows of packets will name.
            now_us = time.time_ns() // 1000
            pids = {entry["pid"]: entry.get("comm", "") for entry in [*listeners, *established]}
            self._processes.seen(Active(pid=pid, comm=comm, cgroup=0, time_us=now_us) for pid, comm in pids.items())

    def _report(self, gauges: dict[str, float]) -> None:
        """The agent's counters as rows of `deepflow_system`: increases since the last report, and gauges."""
        assert self._outbox is not None
        queued = {"queued": 0.0, "queued_bytes": 0.0}
        outbox = {name: float(value) for name, value in self._outbox.counters().items()}
        queued = {name: outbox.pop(name) for name in queued}
        core = {name: float(value) for name, value in self._core.counters().items()}
        groups = {
            "deepflow_agent_capture": _totals_and_sizes(core, "kernel_"),
            "deepflow_agent_packet": _totals_and_sizes(core, "packet_"),
            "deepflow_agent_engine": _totals_and_sizes(
                {name: v for name, v in core.items() if not name.startswith(("kernel_", "packet_"))}, ""
            ),
            "deepflow_agent_outbox": (outbox, queued),
            "deepflow_agent_monitor": ({}, {**gauges, "processes": float(len(self._processes))}),
        }
        rows: list[dict[str, Any]] = []
        for measurement, (totals, now_values) in groups.items():
            last = self._last_counters.get(measurement, {})
            values = {name: value - last.get(name, 0.0) for name, value in totals.items()}
            self._last_counters[measurement] = totals
            rows.append({"virtual_table_name": measurement, "tags": {}, "metrics": {**values, **now_values}})
        for hook in self._hooks:
            tags = {"what": hook["what"], "chosen": hook["chosen"], "lost": hook["lost"]}
            rows.append({"virtual_table_name": "deepflow_agent_hook", "tags": tags, "metrics": {"attached": 1.0}})
        data = _core.system_batch(int(time.time()), self._identity.agent_id, json.dumps(rows))
        self._outbox.put(Entry("/v1/ingest/deepflow_system", new_batch_id(), len(rows), _ARROW, data))

    def _server_ends(self) -> list[tuple[str, int]]:
        """Where packets of the agent itself go."""
        where = urlsplit(self._settings.server)
        port = where.port or (443 if where.scheme == "https" else 80)
        return [(ip, port) for ip in _addresses(where.hostname or "", port)]

    def _local_server(self) -> list[int]:
        """Processes of a server on this host: its own traffic with the agent is no traffic to observe."""
        where = urlsplit(self._settings.server)
        if where.hostname not in ("127.0.0.1", "localhost", "::1"):
            return []
        return listening_pids(self._proc, where.port or 80)


def _totals_and_sizes(counters: dict[str, float], prefix: str) -> tuple[dict[str, float], dict[str, float]]:
    """Counters of one part of the core without its prefix: totals, and present sizes (`*_now`)."""
    mine = {name.removeprefix(prefix): value for name, value in counters.items() if name.startswith(prefix)}
    sizes = {name: value for name, value in mine.items() if name.endswith("_now")}
    return {name: value for name, value in mine.items() if name not in sizes}, sizes


def _addresses(host: str, port: int) -> list[str]:
    """Where a name leads; nowhere when it cannot be resolved now."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]).partition("%")[0] for entry in found})


def _own_address() -> str:
    """The address this host would use to speak to the world, without sending anything; loopback when there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


__all__ = ["Collector", "MemoryExceeded"]
