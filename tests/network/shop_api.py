"""The API of the test's shop: GET /item/N reads row N of MariaDB; GET /health says ok.

    api shop_api.py PORT DATABASE_HOST DATABASE_PORT

One thread a connection, one connection to MariaDB a thread. Run by Debian's Python, which sees Debian's PyMySQL.
"""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pymysql

_own = threading.local()


def database() -> pymysql.Connection[Any]:
    """This thread's connection."""
    if not hasattr(_own, "connection"):
        host, port = sys.argv[2], int(sys.argv[3])
        _own.connection = pymysql.connect(host=host, port=port, user="shop", database="shop", autocommit=True)
    connection: pymysql.Connection[Any] = _own.connection
    return connection


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment: else Nagle waits for the client's delayed ACK

    def do_GET(self) -> None:
        """One item, or a sign of life."""
        if self.path == "/health":
            self.answer(200, b"ok\n")
            return
        number = self.path.rpartition("/")[2].partition("-")[0]
        with database().cursor() as cursor:
            cursor.execute(f"SELECT name FROM item WHERE id = {int(number)} /* {self.path} */")
            found = cursor.fetchone()
        self.answer(200 if found else 404, (found[0] if found else "no such item").encode() + b"\n")

    def answer(self, status: int, body: bytes) -> None:
        """Send a short text."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
