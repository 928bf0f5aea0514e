"""Starts, shows and stops the uninstrumented demo shop, and sends it traffic.

    nginx → api (Python) → Redis, MariaDB
                         → cart (Node) → stock (Go)

Everything the shop writes lies in one run directory; its processes live on loopback
in a network namespace of their own (root) or on this machine's loopback.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
FIXED_PORTS = {"NGINX": 8080, "API": 8000, "CART": 3000, "STOCK": 9000, "REDIS": 6379, "MARIADB": 3306}
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
LISTEN = "0A"  # st column of /proc/net/tcp (include/net/tcp_states.h)


def fail(sentence: str) -> NoReturn:
    print(f"shop: {sentence}", file=sys.stderr)
    raise SystemExit(1)


def cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepflow"


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot (proc(5), stat field 22), 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def listening(pid: int) -> set[int]:
    """TCP ports that listen in the network namespace of `pid`."""
    ports = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTEN:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def free_ports() -> dict[str, int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in FIXED_PORTS]
    ports = {name: one.getsockname()[1] for name, one in zip(FIXED_PORTS, held, strict=True)}
    for one in held:
        one.close()
    return ports


def program(*names: str) -> str:
    for name in names:
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/go/bin")
        if found:
            return found
    fail(f"{' or '.join(names)} is missing; run scripts/setup.sh, or install it with apt")


def build_stock() -> Path:
    """Builds the Go service into the cache, once a version of its source; returns the binary."""
    source = b"".join((HERE / "stock" / name).read_bytes() for name in ("main.go", "go.mod"))
    go = program("go")
    version = subprocess.run([go, "version"], check=True, capture_output=True).stdout
    binary = cache_dir() / "shop" / f"stock-{hashlib.sha256(source + version).hexdigest()[:16]}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        env["GOCACHE"] = str(cache_dir() / "go-build")
        part = binary.with_suffix(f".{os.getpid()}")
        subprocess.run([go, "build", "-o", str(part), "."], cwd=HERE / "stock", env=env, check=True)
        part.replace(binary)
    return binary


@dataclass
class Shop:
    """The run directory of one shop; `shop.json` in it is the record of what runs."""

    run: Path
    netns: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    truth: str = ""
    processes: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, run: Path) -> Shop | None:
        try:
            record = json.loads((run / "shop.json").read_text())
        except OSError:
            return None
        return cls(run, record["netns"], record["ports"], record["truth"], record["processes"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['NGINX']}"

    def save(self) -> None:
        record = {key: getattr(self, key) for key in ("netns", "url", "ports", "truth", "processes")}
        part = self.run / "shop.json.part"
        part.write_text(json.dumps(record, indent=1) + "\n")
        part.replace(self.run / "shop.json")

    def inside(self, argv: list[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.netns}", "--", *argv] if self.netns else argv

    def environment(self) -> dict[str, str]:
        env = {f"SHOP_{name}_PORT": str(number) for name, number in self.ports.items()}
        if self.truth:
            env["SHOP_TRUTH_DIR"] = self.truth
        return env | {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.run),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def named(self, name: str, binary: str) -> str:
        """A link to an interpreter, so that the kernel and `ps` know the process by its service's name."""
        link = self.run / "bin" / name
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(binary)
        return str(link)

    def start(self, name: str, argv: list[str]) -> None:
        with (self.run / f"{name}.log").open("ab") as log:
            started = subprocess.Popen(
                self.inside(argv),
                cwd=self.run,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append({"name": name, "pid": started.pid, "start_ticks": start_ticks(started.pid), "argv": argv})
        self.save()

    def wait(self, *names: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        for name in names:
            record = next(one for one in self.processes if one["name"] == name)
            while self.ports[name.upper()] not in self.heard(record["pid"]):
                if not start_ticks(record["pid"]) or time.monotonic() > deadline:
                    log = (self.run / f"{name}.log").read_text(errors="replace")[-2000:]
                    self.stop()
                    fail(f"{name} did not start. Its log ends:\n{log}")
                time.sleep(0.02)

    @staticmethod
    def heard(pid: int) -> set[int]:
        try:
            return listening(pid)
        except OSError:
            return set()

    def up(self) -> None:
        self.run.mkdir(parents=True, exist_ok=True)
        (self.run / "mariadb").mkdir()
        if self.truth:
            Path(self.truth).mkdir(parents=True, exist_ok=True)
        self.save()
        if self.netns:
            subprocess.run(["ip", "netns", "add", self.netns], check=True)
            subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)
        stock = build_stock()
        user = getpass.getuser()
        database = self.prepare_mariadb(user)
        self.start("mariadb", database)
        self.start(
            "redis",
            [
                program("redis-server"),
                "--bind",
                "127.0.0.1",
                "--port",
                str(self.ports["REDIS"]),
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                str(self.run),
            ],
        )
        self.start("stock", [self.named("stock", str(stock))])
        self.wait("mariadb", "redis", "stock")
        self.start("cart", [self.named("cart", program("node", "nodejs")), str(HERE / "cart.js")])
        python = os.environ.get("SHOP_PYTHON", "/usr/bin/python3")  # Debian's, which sees Debian's PyMySQL and redis-py
        self.start("api", [self.named("api", python), str(HERE / "api.py")])
        self.wait("cart", "api")
        self.start(
            "nginx",
            [
                program("nginx"),
                "-p",
                str(self.run),
                "-c",
                str(self.nginx_conf(user)),
                "-e",
                str(self.run / "nginx.log"),
            ],
        )
        self.wait("nginx")
        self.see_start_times()

    def see_start_times(self) -> None:
        """Notes the workers of nginx as well; nsenter replaces itself, so the pids of the others stay."""
        master = next(one["pid"] for one in self.processes if one["name"] == "nginx")
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        for pid in map(int, children):
            self.processes.append({"name": "nginx worker", "pid": pid, "start_ticks": start_ticks(pid), "argv": []})
        self.save()

    def prepare_mariadb(self, user: str) -> list[str]:
        folder = self.run / "mariadb"
        common = [
            "--no-defaults", f"--user={user}", f"--datadir={folder}", "--innodb-log-file-size=4M",
            "--innodb-buffer-pool-size=16M", "--innodb-flush-method=nosync",
            "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin", "--character-set-server=utf8mb4",
        ]  # fmt: skip
        with (self.run / "mariadb.log").open("ab") as log:
            install = [
                program("mariadb-install-db"),
                *common[:4],
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ]
            subprocess.run(install, check=True, stdout=log, stderr=log)
            schema = (HERE / "schema.sql").read_bytes()
            subprocess.run(
                [program("mariadbd"), *common, "--bootstrap"], input=schema, check=True, stdout=log, stderr=log
            )
        return [
            program("mariadbd"), *common, "--bind-address=127.0.0.1", f"--port={self.ports['MARIADB']}",
            f"--socket={self.socket_path()}",
            f"--pid-file={self.run / 'mariadb.pid'}", "--skip-name-resolve",
            "--thread-handling=one-thread-per-connection",
        ]  # fmt: skip

    def socket_path(self) -> Path:
        path = self.run / "mariadb.sock"
        return path if len(str(path)) < 100 else Path("mariadb.sock")  # sun_path holds 108 bytes

    def nginx_conf(self, user: str) -> Path:
        static = self.run / "static"
        shutil.copytree(HERE / "static", static, dirs_exist_ok=True)
        text = (HERE / "nginx.conf").read_text()
        words = {
            "@USER@": user,
            "@RUN@": str(self.run),
            "@TRUTH@": f"{self.truth}/nginx.jsonl truth" if self.truth else "off",
            "@API_PORT@": str(self.ports["API"]),
            "@NGINX_PORT@": str(self.ports["NGINX"]),
        }
        for word, value in words.items():
            text = text.replace(word, value)
        conf = self.run / "nginx.conf"
        conf.write_text(text)
        return conf

    def alive(self) -> list[dict[str, Any]]:
        return [one for one in self.processes if start_ticks(one["pid"]) == one["start_ticks"] != 0]

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for one in self.alive():
                try:
                    os.kill(one["pid"], number)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while self.alive() and time.monotonic() < deadline:
                time.sleep(0.02)
        if self.netns and Path(f"/run/netns/{self.netns}").exists():
            subprocess.run(["ip", "netns", "del", self.netns], check=False)

    def down(self) -> None:
        self.stop()
        shutil.rmtree(self.run, ignore_errors=True)


def can_make_namespaces() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("nsenter") is not None


def command_up(run: Path, options: argparse.Namespace) -> None:
    old = Shop.load(run)
    if old and old.alive():
        fail(f"the shop in {run} runs already; see demo/shop status, or stop it with demo/shop down")
    if old:
        old.down()
    elif run.exists() and any(run.iterdir()):
        fail(f"{run} holds something that is not a shop; name another directory with --run")
    if options.netns == "none":
        netns = ""
    elif can_make_namespaces():
        netns = options.netns
    else:
        netns = ""
        print(
            "shop: no network namespace without root and iproute2; the shop runs on this machine's loopback",
            file=sys.stderr,
        )
    if netns and Path(f"/run/netns/{netns}").exists():
        fail(
            f"the network namespace {netns} is there already; choose another with --netns, "
            f"or delete it with: ip netns del {netns}"
        )
    truth = os.environ.get("SHOP_TRUTH_DIR", "")
    shop = Shop(run, netns, dict(FIXED_PORTS) if netns else free_ports(), str(Path(truth).resolve()) if truth else "")
    began = time.monotonic()
    try:
        shop.up()
    except (subprocess.CalledProcessError, OSError, KeyboardInterrupt) as error:
        log = run / "mariadb.log"
        tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        shop.down()
        fail(f"could not start: {error}\n{tail}")
    print(
        f"shop: up in {time.monotonic() - began:.1f} s at {shop.url}{' in network namespace ' + netns if netns else ''}"
    )


def command_down(run: Path) -> None:
    shop = Shop.load(run)
    if shop is None:
        print("shop: not running")
        return
    shop.down()
    left = shop.alive()
    if left:
        fail(f"these processes would not stop: {[one['pid'] for one in left]}")
    print("shop: stopped, nothing left behind")


def command_status(run: Path, as_json: bool) -> None:
    shop = Shop.load(run)
    if shop is None:
        fail(f"no shop runs in {run}; start one with demo/shop up")
    alive = {one["pid"] for one in shop.alive()}
    if as_json:
        print((run / "shop.json").read_text(), end="")
    else:
        print(f"{shop.url}{' in network namespace ' + shop.netns if shop.netns else ''}, truth: {shop.truth or 'off'}")
        for one in shop.processes:
            print(f"{one['pid']:>8}  {one['name']:<14} {'runs' if one['pid'] in alive else 'GONE'}")
    if len(alive) < len(shop.processes):
        raise SystemExit(1)


def command_traffic(run: Path, arguments: list[str]) -> None:
    shop = Shop.load(run)
    if shop is None:
        fail(f"no shop runs in {run}; start one with demo/shop up")
    python = os.environ.get("SHOP_PYTHON", "/usr/bin/python3")
    argv = shop.inside([shop.named("shopper", python), str(HERE / "traffic.py"), "--url", shop.url, *arguments])
    os.execvpe(argv[0], argv, shop.environment())


def main() -> None:
    parser = argparse.ArgumentParser(prog="demo/shop", description="An uninstrumented shop to watch.")
    parser.add_argument(
        "--run",
        type=Path,
        default=os.environ.get("SHOP_RUN_DIR"),
        help="run directory (default: var/shop of the project; or SHOP_RUN_DIR)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start every service and wait until each listens")
    up.add_argument(
        "--netns", default="shop", help='name of the network namespace to make, or "none" for this machine\'s loopback'
    )
    commands.add_parser("down", help="stop every service, remove the namespace and the run directory")
    status = commands.add_parser("status", help="processes, pids, address")
    status.add_argument("--json", action="store_true", help="as JSON, with start times in clock ticks")
    commands.add_parser("traffic", help="send requests; see demo/shop traffic --help", add_help=False)
    options, rest = parser.parse_known_args()
    run = Path(options.run or HERE.parent / "var" / "shop").resolve()
    if rest and options.command != "traffic":
        parser.error(f"unknown: {' '.join(rest)}")
    match options.command:
        case "up":
            command_up(run, options)
        case "down":
            command_down(run)
        case "status":
            command_status(run, options.json)
        case "traffic":
            command_traffic(run, rest)


if __name__ == "__main__":
    main()
