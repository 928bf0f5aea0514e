"""The shop's API: one thread a connection, blocking clients, pools opened at the start.

Paths: /order/ID (Redis, cart, MariaDB), /item/ID (Redis, on a miss MariaDB), /slow[/ID]?ms=&at=,
/fail[/ID]?at=. ID is any word of letters, digits, "-" and "_".
With SHOP_TRUTH_DIR set, a line of JSON a request says which calls it made.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import threading
import time
import zlib
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pymysql
import redis

HOST = "127.0.0.1"
ITEMS = 20
POOL = 8
MAX_SLEEP_MS = 10_000
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def port(name: str) -> int:
    return int(os.environ[f"SHOP_{name}_PORT"])


class Truth:
    """What this service did, one JSON line a request; nothing without SHOP_TRUTH_DIR."""

    def __init__(self, service: str) -> None:
        folder = os.environ.get("SHOP_TRUTH_DIR")
        self.file = (Path(folder) / f"{service}.jsonl").open("a", buffering=1) if folder else None
        self.lock = threading.Lock()

    def write(self, entry: dict[str, Any]) -> None:
        if self.file:
            line = json.dumps(entry) + "\n"
            with self.lock:
                self.file.write(line)


class Backends:
    """Connections of the process: fixed pools to Redis and MariaDB, a growing one to the cart."""

    def __init__(self) -> None:
        self.redis = redis.Redis(
            connection_pool=redis.BlockingConnectionPool(
                max_connections=POOL, timeout=30, host=HOST, port=port("REDIS"), socket_timeout=30
            )
        )
        opened = [self.redis.connection_pool.get_connection("GET") for _ in range(POOL)]
        for connection in opened:
            self.redis.connection_pool.release(connection)
        self.mariadb: queue.LifoQueue[pymysql.Connection[Any]] = queue.LifoQueue()
        for _ in range(POOL):
            self.mariadb.put(
                pymysql.connect(
                    host=HOST, port=port("MARIADB"), user="shop", password="shop", database="shop", autocommit=True
                )
            )
        self.cart: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()


class Failure(Exception):
    """A request that ends with `status` and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Order:
    """One request: its calls to the backends, in order, each noted for the truth log."""

    def __init__(self, backends: Backends, ident: str) -> None:
        self.backends = backends
        self.id = ident
        self.number = zlib.crc32(ident.encode()) % ITEMS
        self.calls: list[dict[str, Any]] = []

    def note(self, peer: str, kind: str, resource: str, error: bool = False) -> None:
        self.calls.append({"peer": peer, "type": kind, "resource": resource, "error": error})

    def redis_get(self, key: str) -> str | None:
        value = self.backends.redis.get(key)
        self.note("redis", "GET", f"GET {key}")
        return value.decode() if value is not None else None

    def redis_set(self, key: str, value: str) -> None:
        self.backends.redis.set(key, value)
        self.note("redis", "SET", f"SET {key}")

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        connection = self.backends.mariadb.get(timeout=30)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                rows = list(cursor.fetchall())
        except pymysql.MySQLError as error:
            self.note("mariadb", statement.split(maxsplit=1)[0], statement, error=True)
            raise Failure(500, f"MariaDB refused the statement: {error.args[-1]}") from error
        finally:
            self.backends.mariadb.put(connection)
        self.note("mariadb", statement.split(maxsplit=1)[0], statement)
        return rows

    def ask_cart(self, path: str) -> dict[str, Any]:
        try:
            connection = self.backends.cart.get_nowait()
        except queue.Empty:
            connection = http.client.HTTPConnection(HOST, port("CART"), timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.note("cart", "GET", path, error=True)
            raise Failure(502, f"cart did not answer: {error}") from error
        self.backends.cart.put(connection)
        self.note("cart", "GET", path, error=response.status >= 400)
        if response.status >= 400:
            raise Failure(502, f"cart answered {response.status}")
        answer: dict[str, Any] = json.loads(body)
        return answer

    def order(self) -> dict[str, Any]:
        if self.redis_get(f"order:{self.id}"):
            return {"order": self.id, "state": "known"}
        cart = self.ask_cart(f"/cart/{self.id}")
        self.sql(f"SELECT COUNT(*) FROM orders WHERE id = '{self.id}'")
        self.sql(f"INSERT INTO orders (id, item, price) VALUES ('{self.id}', {self.number}, {cart['price']})")
        self.redis_set(f"order:{self.id}", str(self.number))
        return {"order": self.id, "state": "placed", "price": cart["price"]}

    def item(self) -> dict[str, Any]:
        name = self.redis_get(f"item:{self.id}")
        if name is None:
            rows = self.sql(f"SELECT name FROM items WHERE alias = '{self.id}' OR number = {self.number}")
            name = str(rows[0][0])
            self.redis_set(f"item:{self.id}", name)
        return {"item": self.id, "name": name}

    def slow(self, milliseconds: int, at: str) -> dict[str, Any]:
        if at == "stock":
            self.ask_cart(f"/slow/{self.id}?ms={milliseconds}")
        elif at == "mariadb":
            self.sql(f"SELECT SLEEP({milliseconds / 1000}), '{self.id}'")
        else:
            time.sleep(milliseconds / 1000)
        return {"slow": self.id, "ms": milliseconds, "at": at}

    def fail(self, at: str) -> dict[str, Any]:
        if at == "stock":
            self.ask_cart(f"/fail/{self.id}")
        elif at == "mariadb":
            self.sql(f"SELECT missing FROM nothing WHERE id = '{self.id}'")
        raise Failure(500, f"{self.id} fails, as asked")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "shop-api"
    disable_nagle_algorithm = True  # headers and body are two writes; Nagle would hold back the second
    server: Api

    def do_GET(self) -> None:
        started = time.time_ns()
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        what, _, ident = url.path.lstrip("/").partition("/")
        order = Order(self.server.backends, ident or "none")
        try:
            if not ID.fullmatch(order.id):
                raise Failure(400, "an id has letters, digits, - and _ only")
            answer, status = self.dispatch(order, what, query), 200
        except Failure as failure:
            answer, status = {"error": str(failure)}, failure.status
        body = json.dumps(answer).encode()
        self.server.truth.write(
            {
                "service": "api",
                "method": "GET",
                "path": self.path,
                "status": status,
                "calls": order.calls,
                "start_us": started // 1000,
                "end_us": time.time_ns() // 1000,
                "pid": os.getpid(),
            }
        )
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def dispatch(self, order: Order, what: str, query: dict[str, str]) -> dict[str, Any]:
        match what:
            case "order":
                return order.order()
            case "item":
                return order.item()
            case "slow":
                milliseconds = query.get("ms", "200")
                if not milliseconds.isdecimal() or int(milliseconds) > MAX_SLEEP_MS:
                    raise Failure(400, f"ms is a whole number up to {MAX_SLEEP_MS}")
                return order.slow(int(milliseconds), query.get("at", "api"))
            case "fail":
                return order.fail(query.get("at", "api"))
        raise Failure(404, "the shop has /order/ID, /item/ID, /slow/ID, /fail/ID and /static/")

    def log_message(self, format: str, *args: object) -> None:
        """No line on stderr a request."""


class Api(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self) -> None:
        self.backends = Backends()
        self.truth = Truth("api")
        super().__init__((HOST, port("API")), Handler)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        Api().serve_forever()
