"""Interfaces whose packets agents read: rows of packets carry a number (`capture_nic`), people want a name."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, select, update

from deepflow.resources.metadata import Metadata, interfaces
from deepflow.resources.names import Names
from deepflow.store.dictionaries import VTAP_PORT

MAX_INTERFACES = 8192
"""Interfaces of an agent at one time; the core looks at no more."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What an agent says of an interface.

    `netns` is the inode of its network namespace, 0 for that of the node, `behind` of the one that this veth leads to,
    0 none; `owner` says what lives behind it, else where it is, "" where that is not known.
    """

    capture_nic: int
    name: str
    kind: str
    netns: int
    behind: int
    owner: str


class Interfaces:
    """The interfaces of all agents. Those that are gone keep their names for as long as rows may speak of them."""

    def __init__(self, metadata: Metadata, names: Names, keep_s: int) -> None:
        self._metadata = metadata
        self._names = names
        self._keep_s = keep_s

    def load(self) -> None:
        """Writes the names of all interfaces to the dictionary.

        Raises:
            MetadataError: the metadata cannot be read.
        """
        with self._metadata.begin() as connection:
            self._forget(connection)
            found = connection.execute(select(interfaces)).all()
        for row in found:
            self._name(row.agent_id, Interface(*(getattr(row, field) for field in Interface.__slots__)))

    def replace(self, agent_id: int, listed: Sequence[Interface]) -> None:
        """Takes `listed` for all interfaces that the agent has now; repeating a call changes nothing.

        Raises:
            MetadataError: the metadata cannot be written.
        """
        now = {one.capture_nic: one for one in listed}
        mine = interfaces.c.agent_id == agent_id
        with self._metadata.begin() as connection:
            known = {row.capture_nic: row for row in connection.execute(select(interfaces).where(mine))}
            changed = [one for nic, one in now.items() if nic not in known or _differs(known[nic], one)]
            for one in changed:
                values = {**asdict(one), "gone_s": None}
                if one.capture_nic in known:
                    row = mine & (interfaces.c.capture_nic == one.capture_nic)
                    connection.execute(update(interfaces).where(row).values(**values))
                else:
                    connection.execute(interfaces.insert().values(agent_id=agent_id, **values))
            gone = [nic for nic, row in known.items() if nic not in now and row.gone_s is None]
            for nic in gone:
                row = mine & (interfaces.c.capture_nic == nic)
                connection.execute(update(interfaces).where(row).values(gone_s=int(time.time())))
            self._forget(connection)
        for one in changed:
            self._name(agent_id, one)

    def _forget(self, connection: Connection) -> None:
        connection.execute(delete(interfaces).where(interfaces.c.gone_s < int(time.time()) - self._keep_s))

    def _name(self, agent_id: int, one: Interface) -> None:
        self._names.put(
            VTAP_PORT,
            vtap_id=agent_id,
            tap_port=one.capture_nic,
            name=one.name,
            device_name=one.owner,
            kind=one.kind,
            netns=one.netns,
            behind=one.behind,
        )


def _differs(row: object, one: Interface) -> bool:
    return getattr(row, "gone_s", None) is not None or any(
        getattr(row, field) != value for field, value in asdict(one).items()
    )
