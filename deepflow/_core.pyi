"""The compiled core (core/src/lib.rs): capture, parse, pair, meter. Everything here releases the GIL while it works."""

from pathlib import Path

class Agent:
    """The running capture. One a process."""

    def __init__(self, config: str) -> None:
        """Check the configuration (JSON, docs/architecture.md section 2).

        Raises:
            ValueError: one sentence naming the wrong key.
        """

    def start(self) -> str:
        """Load and attach the kernel programs. What came before the last one was attached is passed over.

        Returns:
            JSON ``{"hooks": [{"what", "chosen", "lost"}]}``.

        Raises:
            OSError: one sentence: what the kernel or the privileges refuse.
        """

    def drain(self, flush_all: bool = False) -> list[tuple[str, int, bytes]]:
        """(table, rows, Arrow IPC stream with zstd buffers) of what was finished since the last call.

        `flush_all` also ends what still waits for a response.
        """

    def process_changes(self) -> str:
        """JSON list of the kernel's exec, fork and exit events since the last call: `kind`, `pid`, `time_us` …"""

    def active_processes(self) -> str:
        """JSON ``[{"pid", "comm", "cgroup", "time_us"}]``: processes that used a socket since the last call.

        `cgroup`: id of the process's cgroup in the v2 tree.
        """

    def listeners(self, table: str) -> None:
        """Tell which sockets listen: JSON ``[{"netns", "ip", "port", "pid"}]``."""

    def sockets(self, table: str) -> None:
        """Tell which connections exist.

        JSON ``[{"netns", "local", "local_port", "remote", "remote_port", "pid", "comm"}]``.
        """

    def interfaces(self) -> str:
        """The interfaces whose packets are read.

        JSON ``[{"capture_nic", "name", "kind", "netns" (0: of the node), "behind" (namespace that a veth leads to)}]``.
        """

    def set_agent_id(self, agent_id: int) -> None:
        """The id (0…1023) that goes into the row ids from now on."""

    def set_throttle(self, rows_per_second: int) -> None:
        """Request log rows a second that are kept; meters are not affected."""

    def counters(self) -> dict[str, int]:
        """Totals since start: what every stage took in, gave out and dropped."""

    def stop(self) -> None:
        """Detach everything."""

def probe() -> str:
    """What this kernel and these privileges allow, found by loading: JSON ``[{"what", "works", "detail", "lost"}]``."""

def cgroup_tree() -> Path | None:
    """Where the cgroup v2 tree is mounted; None when it is not, or when something hides it."""

def replay(path: str, config: str) -> list[tuple[str, int, bytes]]:
    """Run a capture file through the engine, as `Agent.drain` returns it.

    Raises:
        ValueError: one sentence naming the file and what is wrong with it, or a wrong configuration key.
    """

def replay_counted(path: str, config: str) -> tuple[list[tuple[str, int, bytes]], dict[str, int]]:
    """The same, with totals: what every stage took in, gave out and could not use (`frames`, `frames_malformed` …)."""

def protocols() -> str:
    """JSON list of the registry: `id`, `name`, `pairing`, `transports`, `timeout_s`, `doc`."""

def tables() -> list[str]:
    """Tables that `replay` and `drain` can give."""

def system_batch(time_s: int, agent_id: int, rows: str) -> bytes:
    """Rows of `deepflow_system` as an Arrow IPC stream.

    `rows` is JSON ``[{"virtual_table_name", "tags": {}, "metrics": {}}]``.

    Raises:
        ValueError: one sentence.
    """
