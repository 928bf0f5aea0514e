"""Two nodes, two pods each, and what lies between them, in network namespaces of this machine.

        pod a1   pod a2                          pod b1   pod b2
         eth0     eth0                            eth0     eth0          10.244.1.11, .12    10.244.2.11, .12
          |        |                               |        |
        vetha1   vetha2                          vethb1   vethb2
          └─ cni0 ─┘   10.244.1.1                  └─ cni0 ─┘   10.244.2.1
    node a   |                               node b   |
          vxlan0       10.244.1.0                  vxlan0       10.244.2.0       (VNI 7, port 4789)
           eth0        192.168.77.1                 eth0        192.168.77.2
             └──── wire-a   [ wire: a bridge,  ]  wire-b ────┘
                            [ or a forwarder   ]

Pod to pod the packets go through VXLAN. A service address is rewritten on the node of the client (nftables DNAT) and,
as kube-proxy does when asked to masquerade all, the client's address too (SNAT): the server sees the node. What leaves
the pods' network is masqueraded as well. Everything has a name of its own per run and is removed at the end; what a run
that was killed left behind is removed by the next one.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PREFIX = "dfn"
POD_NETWORK = "10.244.0.0/16"
VNI = 7
#: What a VXLAN header takes from 1500.
POD_MTU = 1450
FORWARDER = Path(__file__).with_name("forwarder.py")
RESOLV = Path("/etc/netns")
_runs = itertools.count()


class Missing(Exception):
    """This machine's kernel or tools cannot do a part of the topology; a sentence."""


def ip(*words: str | int) -> str:
    """Run `ip`; raise `Missing` with what it said when it refuses."""
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


@dataclass
class Place:
    """A network namespace: a pod, a node, or the wire."""

    name: str
    namespace: str
    address: str

    @property
    def inode(self) -> int:
        """Number by which the kernel and the agent know the namespace."""
        return Path(f"/run/netns/{self.namespace}").stat().st_ino

    def inside(self, *command: str | Path | int) -> list[str]:
        """The command line that runs a command here; it dies with the one who started it."""
        words = map(str, command)
        return ["ip", "netns", "exec", self.namespace, "setpriv", "--pdeathsig", "KILL", *words]

    def run(self, *command: str | Path | int, seconds: float = 60, check: bool = True) -> str:
        """Run a command here to its end; its standard output. With `check`, a failure raises with what it said."""
        done = subprocess.run(
            self.inside(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{self.name}: {command}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
        return done.stdout

    def nft(self, rules: str) -> str:
        """Load nftables rules here."""
        command = ["ip", "netns", "exec", self.namespace, "nft", "-f", "-"]
        done = subprocess.run(command, input=rules, capture_output=True, text=True, check=False)
        if done.returncode and "Could not process rule" in done.stderr:  # the kernel's refusal, not a wrong rule
            raise Missing(f"nft: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def interface_counters(self, interface: str) -> dict[str, int]:
        """The interface's own counters: rx_bytes, rx_packets, tx_bytes, tx_packets, rx_dropped, tx_dropped …"""
        names = ("rx_bytes", "rx_packets", "tx_bytes", "tx_packets", "rx_dropped", "tx_dropped")
        folder = f"/sys/class/net/{interface}/statistics"
        values = self.run("cat", *(f"{folder}/{name}" for name in names)).split()
        return dict(zip(names, map(int, values), strict=True))

    def kernel_counters(self) -> dict[str, int]:
        """The namespace's counters of /proc/net/snmp and netstat: `Tcp.RetransSegs`, `TcpExt.TCPTimeouts` …"""
        counters: dict[str, int] = {}
        lines = self.run("cat", "/proc/net/snmp", "/proc/net/netstat").splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            group, _, keys = names.partition(":")
            numbers = map(int, values.partition(":")[2].split())
            counters.update({f"{group}.{key}": number for key, number in zip(keys.split(), numbers, strict=True)})
        return counters


@dataclass
class Topology:
    """A running topology; see the drawing above."""

    folder: Path
    nodes: dict[str, Place] = field(default_factory=dict)
    pods: dict[str, Place] = field(default_factory=dict)
    wire: Place | None = None
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def place(self, name: str) -> Place:
        """A node, a pod or the wire by its short name."""
        if name == "wire" and self.wire:
            return self.wire
        return self.pods[name] if name in self.pods else self.nodes[name]

    def places(self) -> list[Place]:
        """All namespaces."""
        return [*self.nodes.values(), *self.pods.values(), *([self.wire] if self.wire else [])]

    def node_of(self, pod: str) -> Place:
        """The node that a pod is on."""
        return self.nodes[pod[0]]

    def start(self, place: str, *command: str | Path | int, port: int = 0, udp: bool = False, **environ: str) -> Path:
        """Start a program and wait until it listens on `port`; the file with what it prints. Stopped at the end."""
        where = self.place(place)
        log = self.folder / f"{place}-{Path(str(command[0])).name}-{len(self._processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                where.inside(*command),
                env=os.environ | environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes.append(process)
        if port:
            self._await_port(where, process, port, udp, log)
        return log

    @staticmethod
    def _await_port(where: Place, process: subprocess.Popen[bytes], port: int, udp: bool, log: Path) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            listening = where.run("ss", "-Hlnu" if udp else "-Hlnt").splitlines()
            if any(line.split()[3].endswith(f":{port}") for line in listening):
                return
            time.sleep(0.1)
        pytest.fail(
            f"{where.name}: nothing listens on port {port}; it said:\n{log.read_text(errors='replace')[-3000:]}"
        )

    def service(
        self, address: str, port: int, pod: str, target: int, *, udp: bool = False, masquerade: bool = True
    ) -> None:
        """A service address on both nodes: `address`:`port` is `target` of a pod."""
        protocol = "udp" if udp else "tcp"
        rule = f"ip daddr {address} {protocol} dport {port}"
        for node in self.nodes.values():
            node.nft(f"add rule ip services prerouting {rule} dnat to {self.pods[pod].address}:{target}\n")
            if masquerade:
                original = f"ct original ip daddr {address} {protocol} dport {target}"
                node.nft(f"add rule ip services postrouting {original} masquerade fully-random\n")

    def lose(self, place: str, percent: float, only: str = "") -> None:
        """From now on `place` loses this share of what it forwards (a pod: receives) and what matches `only`."""
        hook = "input" if place in self.pods else "forward"
        bound = round(percent * 100)
        self.place(place).nft(
            "table inet loss {\n"
            f"chain lossy {{ type filter hook {hook} priority 0; policy accept;\n"
            f"{only} numgen random mod 10000 < {bound} counter drop\n"
            "}\n}\n"
        )

    def lost(self, place: str) -> int:
        """Packets that `lose` has dropped so far."""
        words = self.place(place).run("nft", "list", "table", "inet", "loss").split()
        return int(words[words.index("packets") + 1])

    def forward(self, where: Place, first: str, second: str, delay_us: int) -> None:
        """Join two interfaces of a namespace by the user-space forwarder."""
        log = self.start(where.name, sys.executable, FORWARDER, first, second, delay_us)
        deadline = time.monotonic() + 20
        while "forwarding" not in log.read_text():
            assert time.monotonic() < deadline and self._processes[-1].poll() is None, log.read_text()
            time.sleep(0.05)

    def cut_in_the_pod(self, pod: str) -> None:
        """A pod sends segments as large as they are on the wire: what is counted is then what was sent."""
        ip("-n", self.pods[pod].namespace, "link", "set", "eth0", "gso_max_segs", 1)

    def slow_down(self, pod: str, delay_us: int) -> None:
        """Put the forwarder between a pod's port on its node and the bridge: only this hop takes longer."""
        node = self.node_of(pod)
        inside = ("-n", node.namespace)
        ip(*inside, "link", "set", f"veth{pod}", "nomaster")
        ends = (f"slow{pod}", "mtu", POD_MTU, "type", "veth", "peer", "name", f"port{pod}", "mtu", POD_MTU)
        ip(*inside, "link", "add", *ends)
        for end in (f"slow{pod}", f"port{pod}"):
            ip(*inside, "link", "set", end, "up")
        ip(*inside, "link", "set", f"port{pod}", "master", "cni0")
        self.forward(node, f"veth{pod}", f"slow{pod}", delay_us)

    def stop(self) -> None:
        """Stop every program, the last one first."""
        for process in reversed(self._processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in reversed(self._processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class Builder:
    """Makes the namespaces of one topology; `remove` undoes whatever was made."""

    def __init__(self, folder: Path) -> None:
        self.tag = f"{PREFIX}-{os.getpid()}-{next(_runs)}"
        self.topology = Topology(folder)

    def _place(self, name: str, address: str) -> Place:
        one = Place(name, f"{self.tag}-{name}", address)
        ip("netns", "add", one.namespace)
        ip("-n", one.namespace, "link", "set", "lo", "up")
        for line in ("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"):
            one.run("sysctl", "-qw", line, check=False)  # silence: no router solicitations between the tests' packets
        return one

    @staticmethod
    def cable(one: Place, first: str, other: Place, second: str, mtu: int = 1500) -> None:
        """Two interfaces joined: a veth pair, both ends up."""
        ip(
            *("link", "add", first, "mtu", mtu, "netns", one.namespace, "type", "veth"),
            *("peer", "name", second, "mtu", mtu, "netns", other.namespace),
        )
        ip("-n", one.namespace, "link", "set", first, "up")
        ip("-n", other.namespace, "link", "set", second, "up")

    def node(self, name: str, number: int) -> None:
        """A node with its bridge, its uplink and its way into the wire."""
        node = self._place(name, f"192.168.77.{number}")
        self.topology.nodes[name] = node
        assert self.topology.wire
        self.cable(node, "eth0", self.topology.wire, f"wire-{name}")
        inside = ("-n", node.namespace)
        ip(*inside, "addr", "add", f"{node.address}/24", "dev", "eth0")
        # Without an address of its own a bridge takes the one of a port.
        ip(*inside, "link", "add", "cni0", "address", f"0a:58:0a:f4:0{number}:01", "mtu", POD_MTU, "type", "bridge")
        ip(*inside, "addr", "add", f"10.244.{number}.1/24", "dev", "cni0")
        ip(*inside, "link", "set", "cni0", "up")
        vxlan = ("type", "vxlan", "id", VNI, "local", node.address, "dev", "eth0", "dstport", 4789, "nolearning")
        ip(*inside, "link", "add", "vxlan0", "address", f"0a:00:00:00:00:0{number}", "mtu", POD_MTU, *vxlan)
        ip(*inside, "addr", "add", f"10.244.{number}.0/32", "dev", "vxlan0")
        ip(*inside, "link", "set", "vxlan0", "up")
        node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        # Else addresses are rewritten within the bridge, and what it receives has others than what it sends.
        node.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", check=False)
        node.nft(
            "table ip services {\n"
            "chain prerouting { type nat hook prerouting priority dstnat; policy accept; }\n"
            "chain postrouting { type nat hook postrouting priority srcnat; policy accept;\n"
            f'ip saddr {POD_NETWORK} ip daddr != {POD_NETWORK} oifname "eth0" masquerade\n'
            "}\n}\n"
        )

    def peer(self, name: str, number: int, other: str, other_number: int) -> None:
        """What a node knows of the other one: its pods lie behind its tunnel end (as flannel writes it)."""
        inside = ("-n", self.topology.nodes[name].namespace)
        mac, gateway = f"0a:00:00:00:00:0{other_number}", f"10.244.{other_number}.0"
        ip(*inside, "neigh", "add", gateway, "lladdr", mac, "dev", "vxlan0", "nud", "permanent")
        outer = self.topology.nodes[other].address
        fdb = [*self.topology.nodes[name].inside("bridge", "fdb", "add", mac, "dev", "vxlan0", "dst", outer)]
        done = subprocess.run(fdb, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"bridge fdb: {done.stderr.strip()}")
        ip(*inside, "route", "add", f"10.244.{other_number}.0/24", "via", gateway, "dev", "vxlan0", "onlink")

    def pod(self, name: str, number: int, host: int) -> None:
        """A pod on the node with its first letter."""
        pod = self._place(name, f"10.244.{number}.{host}")
        self.topology.pods[name] = pod
        node = self.topology.nodes[name[0]]
        self.cable(pod, "eth0", node, f"veth{name}", POD_MTU)
        ip("-n", node.namespace, "link", "set", f"veth{name}", "master", "cni0")
        ip("-n", pod.namespace, "addr", "add", f"{pod.address}/24", "dev", "eth0")
        ip("-n", pod.namespace, "route", "add", "default", "via", f"10.244.{number}.1")

    def join(self, delay_us: int | None) -> None:
        """The wire between the nodes: a bridge of the kernel, or the forwarder with its delay."""
        wire = self.topology.wire
        assert wire
        if delay_us is not None:
            for node in self.topology.nodes.values():
                # The header of a packet socket cannot say "a TCP segment to cut inside a tunnel": the node cuts it.
                ip("-n", node.namespace, "link", "set", "vxlan0", "gso_max_segs", 1)
                ip("-n", node.namespace, "link", "set", "eth0", "gso_max_segs", 1)
            self.topology.forward(wire, "wire-a", "wire-b", delay_us)
            return
        ip("-n", wire.namespace, "link", "add", "br0", "address", "0a:00:00:00:00:09", "type", "bridge")
        ip("-n", wire.namespace, "link", "set", "br0", "up")
        for name in self.topology.nodes:
            ip("-n", wire.namespace, "link", "set", f"wire-{name}", "master", "br0")

    def build(self, delay_us: int | None) -> Topology:
        """The whole of it."""
        self.topology.wire = self._place("wire", "")
        self.node("a", 1)
        self.node("b", 2)
        self.peer("a", 1, "b", 2)
        self.peer("b", 2, "a", 1)
        for name, number, host in (("a1", 1, 11), ("a2", 1, 12), ("b1", 2, 11), ("b2", 2, 12)):
            self.pod(name, number, host)
        self.join(delay_us)
        return self.topology

    def remove(self) -> None:
        """Stop the programs and remove every namespace that was made."""
        self.topology.stop()
        for place in self.topology.places():
            _remove(place.namespace)


def _remove(namespace: str) -> None:
    """End what runs in one of our namespaces, then remove it with its interfaces and its resolver file."""
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False).stdout
    for pid in listed.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
    shutil.rmtree(RESOLV / namespace, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove the namespaces of runs that were killed: their names say whose they were."""
    listed = {one.name for folder in (Path("/run/netns"), RESOLV) if folder.is_dir() for one in folder.iterdir()}
    for name in listed:
        prefix, _, rest = name.partition("-")
        owner = rest.partition("-")[0]
        if prefix == PREFIX and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _remove(name)


def resolve_by(place: Place, server: str, search: str) -> None:
    """Programs started in a place from now on resolve names at `server` (ip-netns(8): files of /etc/netns)."""
    folder = RESOLV / place.namespace
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resolv.conf").write_text(f"nameserver {server}\nsearch {search}\noptions timeout:2 attempts:2\n")


@contextmanager
def topology(folder: Path, *, delay_us: int | None = None) -> Iterator[Topology]:
    """The topology, for the time of a `with`; skips, saying why, where the kernel lacks a part.

    `delay_us`: the wire is the user-space forwarder, which adds this much in each direction; None: a kernel bridge.
    """
    missing = [one for one in ("ip", "bridge", "nft", "setpriv", "ss", "sysctl") if not shutil.which(one)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"the topology needs root, and these programs: {', '.join(missing) or 'all there'}")
    remove_leftovers()
    builder = Builder(folder)
    with ExitStack() as undo:
        undo.callback(builder.remove)
        try:
            made = builder.build(delay_us)
        except Missing as why:
            pytest.skip(f"the kernel cannot do the topology: {why}")
        yield made
