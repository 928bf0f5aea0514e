"""Sends requests to the shop, each with a path of its own, over one kept connection a worker; prints a summary.

With SHOP_TRUTH_DIR set, a line of JSON a request goes to client.jsonl:
path, status, start and end as the client saw them.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MIX = ("order", "item", "item", "order", "static", "item", "order", "slow", "item", "fail")


def paths(options: argparse.Namespace) -> Iterator[str]:
    """Path after path. Ids are PREFIX-NUMBER; "mixed" asks for items more than once, so that Redis hits and misses."""
    for number in itertools.count():
        ident = f"{options.prefix}-{number}"
        kind = MIX[number % len(MIX)] if options.kind == "mixed" else options.kind
        if kind == "slow":
            yield f"/slow/{ident}?ms={options.ms}&at={options.at}"
        elif kind == "fail":
            yield f"/fail/{ident}?at={options.at}"
        elif kind == "static":
            yield f"/static/index.html?{ident}"
        elif kind == "item" and options.kind == "mixed":
            yield f"/item/{options.prefix}-{number // 3}"
        else:
            yield f"/{kind}/{ident}"


class Traffic:
    def __init__(self, options: argparse.Namespace) -> None:
        url = urlsplit(options.url)
        self.host, self.port = url.hostname or "127.0.0.1", url.port or 80
        self.options = options
        self.lock = threading.Lock()
        self.results: list[dict[str, Any]] = []
        self.began = time.monotonic()
        self.paths = paths(options)
        self.given = 0
        self.start_line = threading.Barrier(options.concurrency)

    def next_path(self) -> str | None:
        """The next path, when its time has come; None at the end."""
        with self.lock:
            number, over = self.given, time.monotonic() - self.began
            if (self.options.seconds and over >= self.options.seconds) or (
                not self.options.seconds and number >= self.options.requests
            ):
                return None
            self.given += 1
            path = next(self.paths)
        if self.options.rate:
            time.sleep(max(0.0, number / self.options.rate - (time.monotonic() - self.began)))
        return path

    def worker(self) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        self.start_line.wait()
        while (path := self.next_path()) is not None:
            wall, began = time.time_ns() // 1000, time.perf_counter_ns()
            error = ""
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException) as failure:
                connection.close()
                status, error = 0, str(failure) or type(failure).__name__
            took = (time.perf_counter_ns() - began) // 1000
            if self.options.new_connections:
                connection.close()
            with self.lock:
                self.results.append(
                    {
                        "service": "client",
                        "method": "GET",
                        "path": path,
                        "status": status,
                        "start_us": wall,
                        "duration_us": took,
                        "error": error,
                    }
                )
        connection.close()

    def run(self) -> None:
        workers = [threading.Thread(target=self.worker) for _ in range(self.options.concurrency)]
        for one in workers:
            one.start()
        for one in workers:
            one.join()

    def summary(self) -> dict[str, Any]:
        seconds = time.monotonic() - self.began
        took = sorted(one["duration_us"] for one in self.results)
        statuses: dict[str, int] = {}
        for one in self.results:
            statuses[str(one["status"])] = statuses.get(str(one["status"]), 0) + 1
        middle = took[len(took) // 2] if took else 0
        return {
            "requests": len(took),
            "statuses": dict(sorted(statuses.items())),
            "seconds": round(seconds, 3),
            "median_us": middle,
            "max_us": took[-1] if took else 0,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="demo/shop traffic", description="Sends the shop requests with distinct paths."
    )
    parser.add_argument("--url", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0, help="go on for so long, instead of --requests")
    parser.add_argument(
        "--rate", type=float, default=0, help="requests a second, over all workers (0: as fast as they come)"
    )
    parser.add_argument("--kind", choices=["mixed", "order", "item", "slow", "fail", "static"], default="mixed")
    parser.add_argument(
        "--at",
        choices=["api", "stock", "mariadb"],
        default="api",
        help="where a slow or failing request is slow or fails",
    )
    parser.add_argument("--ms", type=int, default=200, help="how slow a slow request is")
    parser.add_argument(
        "--prefix", default=f"t{time.time_ns() // 1000:x}", help="what ids begin with (default: from the clock)"
    )
    parser.add_argument("--new-connections", action="store_true", help="a new connection a request")
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    options = parser.parse_args()
    if options.concurrency < 1 or options.requests < 0:
        parser.error("--concurrency is at least 1, --requests at least 0")
    traffic = Traffic(options)
    traffic.run()
    folder = os.environ.get("SHOP_TRUTH_DIR")
    if folder:
        with (Path(folder) / "client.jsonl").open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in traffic.results)
    result = traffic.summary()
    if options.json:
        print(json.dumps(result))
    else:
        statuses = ", ".join(f"{count} × {status}" for status, count in result["statuses"].items())
        print(
            f"shop: {result['requests']} requests in {result['seconds']} s ({statuses}), "
            f"median {result['median_us'] / 1000:.1f} ms, slowest {result['max_us'] / 1000:.1f} ms"
        )
    if any(one["error"] for one in traffic.results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
