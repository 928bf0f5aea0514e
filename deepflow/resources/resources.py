"""Agents, hosts, processes and services: who gets which id, and what each id is called."""

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection, delete, select

from deepflow.resources.interfaces import Interface, Interfaces
from deepflow.resources.metadata import Metadata, agents, hosts, interfaces, processes, raise_pool, services, take_id
from deepflow.resources.names import Names
from deepflow.resources.tagger import PROCESS_TYPE, KnownProcess, Tagger
from deepflow.store import Store
from deepflow.store.dictionaries import CHOST, DEVICE, GPROCESS, HOST, VTAP

MAX_AGENTS = 1023
_MAX_HOSTS = 65_535
_MAX_RESOURCES = 2**32 - 1
_CHOST_TYPE, _HOST_TYPE = 1, 6
# Rows live at most 168 h; a day more and nothing names these ids any longer.
KEEP_S = 192 * 3600
# An agent that starts again computes its host's boot time anew, and start times move by what the clock was set.
_SAME_START_US = 2_000_000


class ResourceError(Exception):
    """A registration cannot be accepted; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """What an agent says of itself."""

    name: str
    machine_id: str
    boot_id: str
    kernel: str
    version: str
    ip: str


@dataclass(frozen=True, slots=True)
class Process:
    """What an agent says of a process; times in µs, `end_time_us` None while it lives."""

    pid: int
    start_time_us: int
    end_time_us: int | None
    name: str
    process_name: str
    cmdline: str
    user: str
    container_id: str
    ppid: int


@dataclass(frozen=True, slots=True)
class _Known:
    process: Process
    gprocess_id: int
    service_id: int


class Resources:
    """All resources of a server. Methods may be called from any thread; all raise MetadataError."""

    def __init__(self, metadata_url: str, store: Store) -> None:
        """Opens the metadata and writes all names to the dictionaries of `store`, which must be prepared.

        Raises:
            MetadataError, StoreError: one of the two cannot be used.
        """
        self._metadata = Metadata(metadata_url)
        self._lock = threading.RLock()
        self._hosts: dict[int, int] = {}
        self._known: dict[tuple[int, int], list[_Known]] = {}
        self._services: dict[tuple[int, str, str], int] = {}
        self._tagger: Tagger | None = None
        self._names = Names(store)
        self._interfaces = Interfaces(self._metadata, self._names, KEEP_S)
        try:
            self._protect_ids(store)
            self._load()
            self._interfaces.load()
            self._names.flush()
        except Exception:
            self.close()
            raise

    @property
    def metadata(self) -> Metadata:
        """The database that these resources live in."""
        return self._metadata

    def close(self) -> None:
        """Writes the names that are waiting and closes the metadata."""
        self._names.close()
        self._metadata.close()

    def flush_names(self) -> None:
        """Writes waiting names now, instead of within a second.

        Raises:
            StoreError: the store failed.
        """
        self._names.flush()

    def register_agent(self, identity: AgentIdentity) -> int:
        """The agent id (1 to 1023) of this machine, the same at each call.

        Raises:
            ResourceError: all ids are taken by agents that were seen within the last eight days.
        """
        values = {key: value for key, value in asdict(identity).items() if key != "machine_id"}
        values["last_seen_s"] = int(time.time())
        with self._lock, self._metadata.begin() as connection:
            found = connection.execute(
                select(agents.c.agent_id, agents.c.host_id).where(agents.c.machine_id == identity.machine_id)
            ).one_or_none()
            if found is not None:
                agent_id, host_id = int(found.agent_id), int(found.host_id)
                connection.execute(agents.update().where(agents.c.agent_id == agent_id).values(**values))
            else:
                host_id = self._host(connection, identity)
                agent_id = _free_agent_id(connection)
                connection.execute(
                    agents.insert().values(agent_id=agent_id, host_id=host_id, machine_id=identity.machine_id, **values)
                )
            connection.execute(
                hosts.update().where(hosts.c.host_id == host_id).values(name=identity.name, ip=identity.ip)
            )
            self._hosts[agent_id] = host_id
            self._tagger = None
        self._name_agent(agent_id, host_id, identity.name)
        self._name_host(host_id, identity.name, identity.ip)
        return agent_id

    def is_agent(self, agent_id: int) -> bool:
        """Whether an agent has registered and got this id."""
        return agent_id in self._hosts

    def seen(self, agent_id: int) -> None:
        """Notes that the agent is alive."""
        with self._metadata.begin() as connection:
            connection.execute(
                agents.update().where(agents.c.agent_id == agent_id).values(last_seen_s=int(time.time()))
            )

    def list_agents(self) -> list[dict[str, str | int]]:
        """All agents: agent_id, name, version, kernel, boot_id, ip, host_id, last_seen_s (s since 1970)."""
        with self._metadata.begin() as connection:
            rows = connection.execute(select(agents).order_by(agents.c.agent_id)).mappings().all()
        return [{key: value for key, value in row.items() if key != "machine_id"} for row in rows]

    def upsert_processes(self, agent_id: int, changed: Sequence[Process]) -> None:
        """Adds processes or replaces what is known of them; repeating a call changes nothing.

        Raises:
            ResourceError: the agent has not registered, or ids are used up.
        """
        with self._lock:
            if agent_id not in self._hosts:
                raise ResourceError(f"Agent {agent_id} is unknown; register it first.")
            named: list[_Known] = []
            fresh: dict[tuple[int, str, str], int] = {}
            with self._metadata.begin() as connection:
                for process in changed:
                    known = self._upsert(connection, agent_id, process, fresh)
                    if known is not None:
                        named.append(known)
            for known in named:
                self._remember(agent_id, known)
            self._services.update(fresh)
            if named:
                self._tagger = None
        for known in named:
            self._name_process(agent_id, known)

    def replace_interfaces(self, agent_id: int, listed: Sequence[Interface]) -> None:
        """Takes `listed` for all interfaces whose packets the agent reads now; repeating a call changes nothing.

        Raises:
            ResourceError: the agent has not registered.
        """
        if agent_id not in self._hosts:
            raise ResourceError(f"Agent {agent_id} is unknown; register it first.")
        self._interfaces.replace(agent_id, listed)

    def tagger(self) -> Tagger:
        """The lookup over all processes known now."""
        with self._lock:
            if self._tagger is None:
                self._tagger = Tagger(
                    (
                        KnownProcess(
                            agent_id,
                            pid,
                            known.process.start_time_us,
                            known.process.end_time_us,
                            known.gprocess_id,
                            known.service_id,
                        )
                        for (agent_id, pid), group in self._known.items()
                        for known in group
                    ),
                    dict(self._hosts),
                )
            return self._tagger

    def _upsert(
        self, connection: Connection, agent_id: int, process: Process, fresh: dict[tuple[int, str, str], int]
    ) -> _Known | None:
        """Stores one process; None when nothing changed."""
        present = self._find(agent_id, process)
        if present is not None:
            process = replace(process, start_time_us=present.process.start_time_us)
            if present.process == process:
                return None
        service_id = self._service(connection, agent_id, process, fresh)
        values = {**asdict(process), "service_id": service_id, "host_id": self._hosts[agent_id]}
        if present is not None:
            connection.execute(
                processes.update().where(processes.c.gprocess_id == present.gprocess_id).values(**values)
            )
            return _Known(process, present.gprocess_id, service_id)
        gprocess_id = take_id(connection, "resource", _MAX_RESOURCES)
        if gprocess_id is None:
            raise ResourceError("All ids of processes and services are used up; start with a new data folder.")
        connection.execute(processes.insert().values(gprocess_id=gprocess_id, agent_id=agent_id, **values))
        return _Known(process, gprocess_id, service_id)

    def _find(self, agent_id: int, process: Process) -> _Known | None:
        for known in self._known.get((agent_id, process.pid), ()):
            if abs(known.process.start_time_us - process.start_time_us) <= _SAME_START_US:
                return known
        return None

    def _remember(self, agent_id: int, known: _Known) -> None:
        group = self._known.setdefault((agent_id, known.process.pid), [])
        group[:] = [other for other in group if other.gprocess_id != known.gprocess_id] + [known]

    def _service(
        self, connection: Connection, agent_id: int, process: Process, fresh: dict[tuple[int, str, str], int]
    ) -> int:
        key = (self._hosts[agent_id], process.container_id, process.name)
        if (found := self._services.get(key) or fresh.get(key)) is not None:
            return found
        service_id = take_id(connection, "resource", _MAX_RESOURCES)
        if service_id is None:
            raise ResourceError("All ids of processes and services are used up; start with a new data folder.")
        connection.execute(
            services.insert().values(service_id=service_id, host_id=key[0], container_id=key[1], name=key[2])
        )
        fresh[key] = service_id
        self._names.put(DEVICE, devicetype=PROCESS_TYPE, deviceid=service_id, name=process.name)
        return service_id

    def _host(self, connection: Connection, identity: AgentIdentity) -> int:
        found = connection.execute(
            select(hosts.c.host_id).where(hosts.c.machine_id == identity.machine_id)
        ).scalar_one_or_none()
        if found is not None:
            return int(found)
        host_id = take_id(connection, "host", _MAX_HOSTS)
        if host_id is None:
            raise ResourceError("All 65535 host ids are used up; start with a new data folder.")
        connection.execute(
            hosts.insert().values(host_id=host_id, machine_id=identity.machine_id, name=identity.name, ip=identity.ip)
        )
        return host_id

    def _name_process(self, agent_id: int, known: _Known) -> None:
        process = known.process
        instance = f"{process.name}:{process.pid}"
        host_id = self._hosts[agent_id]
        self._names.put(DEVICE, devicetype=PROCESS_TYPE, deviceid=known.gprocess_id, name=instance)
        self._names.put(
            GPROCESS, id=known.gprocess_id, name=process.name, host_id=host_id, agent_id=agent_id, pid=process.pid
        )

    def _name_agent(self, agent_id: int, host_id: int, name: str) -> None:
        self._names.put(VTAP, id=agent_id, name=name, host_id=host_id, host_name=name)

    def _name_host(self, host_id: int, name: str, ip: str) -> None:
        self._names.put(HOST, id=host_id, name=name, hostname=name, ip=ip)
        self._names.put(CHOST, id=host_id, name=name, host_id=host_id, hostname=name, ip=ip)
        for kind in (_CHOST_TYPE, _HOST_TYPE):
            self._names.put(DEVICE, devicetype=kind, deviceid=host_id, name=name, hostname=name, ip=ip)

    def _protect_ids(self, store: Store) -> None:
        """A lost or replaced metadata database must not give ids that rows in the store already use."""
        used = store.query(
            "SELECT (SELECT max(deviceid) FROM flow_tag.device_rows WHERE devicetype = 120) AS resource, "
            "(SELECT max(id) FROM flow_tag.host_rows) AS host, (SELECT max(id) FROM flow_tag.vtap_rows) AS agent"
        ).to_pylist()[0]
        with self._metadata.begin() as connection:
            for pool, highest in used.items():
                raise_pool(connection, pool, int(highest or 0))

    def _load(self) -> None:
        ended = (int(time.time()) - KEEP_S) * 1_000_000
        with self._metadata.begin() as connection:
            connection.execute(delete(processes).where(processes.c.end_time_us < ended))
            found_agents = connection.execute(select(agents)).all()
            found_hosts = connection.execute(select(hosts)).all()
            found_services = connection.execute(select(services)).all()
            found_processes = connection.execute(select(processes)).all()
        for row in found_agents:
            self._hosts[row.agent_id] = row.host_id
            self._name_agent(row.agent_id, row.host_id, row.name)
        for row in found_hosts:
            self._name_host(row.host_id, row.name, row.ip)
        for row in found_services:
            self._services[row.host_id, row.container_id, row.name] = row.service_id
            self._names.put(DEVICE, devicetype=PROCESS_TYPE, deviceid=row.service_id, name=row.name)
        for row in found_processes:
            process = Process(*(getattr(row, name) for name in Process.__slots__))
            known = _Known(process, row.gprocess_id, row.service_id)
            self._remember(row.agent_id, known)
            if row.agent_id in self._hosts:
                self._name_process(row.agent_id, known)


def _free_agent_id(connection: Connection) -> int:
    agent_id = take_id(connection, "agent", MAX_AGENTS)
    if agent_id is not None:
        return agent_id
    oldest = connection.execute(select(agents).order_by(agents.c.last_seen_s).limit(1)).one_or_none()
    if oldest is None or oldest.last_seen_s > time.time() - KEEP_S:
        raise ResourceError(f"All {MAX_AGENTS} agent ids are in use; one is freed eight days after it was last seen.")
    connection.execute(delete(agents).where(agents.c.agent_id == oldest.agent_id))
    for owned in (processes, interfaces):
        connection.execute(delete(owned).where(owned.c.agent_id == oldest.agent_id))
    return int(oldest.agent_id)
