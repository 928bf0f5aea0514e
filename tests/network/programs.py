"""Real programs in the pods of a topology: a shop whose every call crosses both nodes and both NATs.

    shopper (a1) → nginx (b1) → api (a2) → mariadbd (b2)
                 ↘ dnsmasq (b2), by the name of the service

Each arrow goes to a service address: the node of the client rewrites the server's address and the client's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.network.topology import Topology, resolve_by

HERE = Path(__file__).parent
DEBIAN_PYTHON = "/usr/bin/python3"
DOMAIN = "shop.test"
#: Service address, port, pod and its port.
WEB = ("10.96.0.10", 80, "b1", 8080)
API = ("10.96.0.20", 8000, "a2", 8000)
DATABASE = ("10.96.0.30", 3306, "b2", 3306)
NAMES = ("10.96.0.2", 53, "b2", 53)
ITEMS = 1000
#: The calls that one request for an item makes: client, server, protocol.
CALLS = (("shopper", "nginx", "HTTP"), ("nginx", "api", "HTTP"), ("api", "mariadbd", "MySQL"))


def need(*programs: str) -> None:
    """Skip, naming what is missing, unless every program is on the path."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (scripts/setup.sh, tests/live/packages.txt)")


class Shop:
    """The programs, running in a topology."""

    def __init__(self, topology: Topology) -> None:
        need("nginx", "mariadbd", "mariadb-install-db", "dnsmasq", "curl", DEBIAN_PYTHON)
        if subprocess.run([DEBIAN_PYTHON, "-c", "import pymysql"], capture_output=True, check=False).returncode:
            pytest.skip("not installed: python3-pymysql (scripts/setup.sh)")
        self.topology = topology
        for service in (WEB, API, DATABASE, NAMES):
            topology.service(*service)
        topology.service(*NAMES, udp=True)
        self._names()
        self._database()
        self._api()
        self._web()
        resolve_by(topology.place("a1"), NAMES[0], DOMAIN)

    def _named(self, name: str) -> Path:
        """A program of this name: the process table shows what the file is called."""
        link = self.topology.folder / name
        if not link.exists():
            link.symlink_to(DEBIAN_PYTHON)
        return link

    def _names(self) -> None:
        zone = [f"--host-record={name}.{DOMAIN},{where[0]}" for name, where in (("web", WEB), ("api", API))]
        zone.append(f"--address=/many.{DOMAIN}/{WEB[0]}")
        words = "dnsmasq -k --no-resolv --no-hosts --user=root --pid-file= --conf-file=/dev/null"
        local = (f"--local=/{DOMAIN}/", "--except-interface=lo", "--bind-interfaces")
        self.topology.start(NAMES[2], *words.split(), *local, *zone, port=53, udp=True)

    def _database(self) -> None:
        pod, port = self.topology.place(DATABASE[2]), DATABASE[3]
        data = self.topology.folder / "mariadb"
        install = ("mariadb-install-db", "--user=root", f"--datadir={data}", "--auth-root-authentication-method=normal")
        pod.run(*install, "--skip-test-db", seconds=120)
        first = self.topology.folder / "first.sql"
        rows = ", ".join(f"({number}, 'item {number}')" for number in range(1, ITEMS + 1))
        first.write_text(
            "CREATE DATABASE shop;\nCREATE USER 'shop'@'%';\nGRANT ALL ON shop.* TO 'shop'@'%';\n"
            "CREATE TABLE shop.item (id INT PRIMARY KEY, name VARCHAR(64));\n"
            f"INSERT INTO shop.item VALUES {rows};\n"
        )
        files = (f"--datadir={data}", f"--socket={data / 's'}", f"--pid-file={data / 'p'}", f"--init-file={first}")
        options = ("--bind-address=0.0.0.0", "--skip-name-resolve", "--innodb-buffer-pool-size=16M")
        self.topology.start(pod.name, "mariadbd", "--no-defaults", "--user=root", *files, *options, port=port)

    def _api(self) -> None:
        words = (self._named("api"), HERE / "shop_api.py", API[3], DATABASE[0], DATABASE[1])
        self.topology.start(API[2], *words, port=API[3])

    def _web(self) -> None:
        folder = self.topology.folder / "nginx"
        (folder / "logs").mkdir(parents=True)
        temporary = "".join(
            f" {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
            "events { worker_connections 512; }\n"
            f"http {{ access_log off;\n{temporary}"
            f" upstream api {{ server {API[0]}:{API[1]}; keepalive 8; }}\n"
            f" server {{ listen {WEB[3]}; location / {{ proxy_pass http://api; proxy_http_version 1.1;"
            ' proxy_set_header Connection ""; }\n'
            "  location = /short { return 200 'a short answer\\n'; } } }\n"
        )
        self.topology.start(WEB[2], "nginx", "-p", folder, "-c", folder / "nginx.conf", port=WEB[3])

    def buy(self, word: str, count: int, *, connections: int = 1, pause_ms: float = 0, by: str = "web") -> list[int]:
        """Ask for `count` items over some connections, by the name of the service; µs each took for the client."""
        url = f"http://{by}.{DOMAIN}:{WEB[1]}"
        pod = self.topology.place("a1")
        program = (self._named("shopper"), HERE / "shopper.py")
        took: list[int] = json.loads(pod.run(*program, url, word, count, connections, str(pause_ms), seconds=120))
        return took

    def curl(self, path: str) -> str:
        """One request by curl."""
        return self.topology.place("a1").run("curl", "-sS", "--fail", f"http://web.{DOMAIN}{path}")
