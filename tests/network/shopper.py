"""A client with several connections: COUNT requests for items, evenly over CONNECTIONS, then it ends.

    shopper shopper.py URL WORD COUNT CONNECTIONS PAUSE_MS

Paths are /item/N-WORD, N from 1; prints how long each request took, µs, as a list in JSON. The host of the URL is
resolved once a connection.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit


def ask(host: str, port: int, paths: list[str], pause_s: float, took: dict[str, int]) -> None:
    """Send one request after the other on one connection."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    connection.connect()
    for path in paths:
        began = time.monotonic()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        took[path] = round((time.monotonic() - began) * 1e6)
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status}")
        time.sleep(pause_s)
    connection.close()


def main(url: str, word: str, count: int, connections: int, pause_ms: float) -> None:
    """Run all connections at once."""
    where = urlsplit(url)
    paths = [f"/item/{number}-{word}" for number in range(1, count + 1)]
    took: dict[str, int] = {}
    threads = [
        threading.Thread(
            target=ask, args=(where.hostname, where.port or 80, paths[i::connections], pause_ms / 1e3, took)
        )
        for i in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(took) != count:
        raise SystemExit(f"{count - len(took)} of {count} requests failed")
    print(json.dumps([took[path] for path in paths]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
