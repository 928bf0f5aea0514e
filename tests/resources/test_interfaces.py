"""Names of interfaces: told again, gone, come back, and forgotten when no row can speak of them any longer."""

from pathlib import Path
from typing import Any

import pytest

from deepflow.resources import Interface, Metadata
from deepflow.resources import interfaces as module
from deepflow.resources.interfaces import Interfaces
from deepflow.resources.names import Names
from deepflow.store.dictionaries import Dictionary

KEEP_S = 100
ETH0 = Interface(0x0A0B0C0D, "eth0", "physical", 0, 0, "")
POD = Interface(17, "veth1", "veth", 0, 4026532105, "nginx")


class Written(Names):
    """Keeps what would be written."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def put(self, dictionary: Dictionary, **row: Any) -> None:
        assert dictionary.name == "vtap_port_map" and set(row) == {*dictionary.keys, *dictionary.attributes} - {
            "icon_id"
        }
        self.rows.append(row)

    def taken(self) -> list[tuple[int, int, str, str]]:
        """(agent, number, name, owner) written since the last look."""
        rows, self.rows = self.rows, []
        return sorted((row["vtap_id"], row["tap_port"], row["name"], row["device_name"]) for row in rows)


def test_life_of_an_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000
    monkeypatch.setattr(module.time, "time", lambda: now)
    metadata = Metadata(f"sqlite:///{tmp_path}/metadata.sqlite")

    def after_restart() -> list[tuple[int, int, str, str]]:
        written = Written()
        Interfaces(metadata, written, KEEP_S).load()
        return written.taken()

    written = Written()
    known = Interfaces(metadata, written, KEEP_S)
    known.replace(1, [ETH0, POD])
    known.replace(2, [ETH0])
    eth0, pod, other = (1, ETH0.capture_nic, "eth0", ""), (1, 17, "veth1", "nginx"), (2, ETH0.capture_nic, "eth0", "")
    assert written.taken() == sorted([eth0, pod, other]) == after_restart()

    known.replace(1, [ETH0, POD])
    assert written.taken() == []
    # Another pod gets the number; then the interface goes, and its rows stay named for a while.
    known.replace(1, [ETH0, Interface(17, "veth2", "veth", 0, 4026532106, "api")])
    assert written.taken() == [(1, 17, "veth2", "api")]
    known.replace(1, [ETH0])
    now += KEEP_S
    assert (1, 17, "veth2", "api") in after_restart()
    known.replace(1, [ETH0, POD])
    assert written.taken() == [pod]
    now += 2 * KEEP_S
    known.replace(2, [])
    assert sorted(after_restart()) == sorted([eth0, pod, other])
    now += KEEP_S + 1
    assert after_restart() == sorted([eth0, pod])
    metadata.close()
