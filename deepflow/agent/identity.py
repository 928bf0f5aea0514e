"""Who this agent is: kept in its state directory so that ids stay the same over restarts."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from deepflow.agent.processes import boot_time_us

_FILE = "identity.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """`boot_time_us` belongs to `boot_id`: the start times of processes are computed from it, always alike."""

    machine_id: str
    boot_id: str
    boot_time_us: int
    agent_id: int

    @classmethod
    def load(cls, directory: Path) -> Identity:
        """The identity of the last run, renewed where the machine was booted since."""
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        try:
            known = cls(**json.loads((directory / _FILE).read_text()))
        except (OSError, ValueError, TypeError):
            known = cls(_machine_id(), boot_id, boot_time_us(), 0)
        if known.boot_id != boot_id:
            known = replace(known, boot_id=boot_id, boot_time_us=boot_time_us())
        known._save(directory)
        return known

    def with_agent_id(self, agent_id: int, directory: Path) -> Identity:
        """The same with the id that the server gave, saved."""
        changed = replace(self, agent_id=agent_id)
        changed._save(directory)
        return changed

    def _save(self, directory: Path) -> None:
        part = directory / f"{_FILE}.part"
        part.write_text(json.dumps(asdict(self)))
        part.rename(directory / _FILE)


def _machine_id() -> str:
    """The host's machine id; a random one where the host has none (it is kept in the state directory)."""
    try:
        text = Path("/etc/machine-id").read_text().strip()
    except OSError:
        text = ""
    return text or uuid.uuid4().hex
