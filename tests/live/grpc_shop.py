"""A gRPC service without generated code (messages are bytes): `server PORT` serves it, `client PORT` calls it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]

SERVICE = "shop.Cart"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def get(request: bytes, context: Any) -> bytes:
    if request == b"none":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such cart: é")
    if request == b"slow":
        time.sleep(3)
    return b"cart of " + request


def watch(request: bytes, context: Any) -> Iterator[bytes]:
    for number in range(20):
        yield b"%d" % number
        # Of each read the agent sees its beginning: what eight streams send while the client stands still has to fit.
        time.sleep(0.1 if request == b"together" else 0.01)
    if request == b"broken":
        context.abort(grpc.StatusCode.DATA_LOSS, "the end is missing")


def add(requests: Iterator[bytes], context: Any) -> bytes:
    return b"%d" % sum(1 for _ in requests)


def chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from requests


def serve(port: str) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    handlers = {
        "Get": grpc.unary_unary_rpc_method_handler(get),
        "Large": grpc.unary_unary_rpc_method_handler(get),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
        "Add": grpc.stream_unary_rpc_method_handler(add),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def call(port: str) -> None:
    said = []

    def outcome(method: str, run: Any) -> None:
        try:
            run()
            said.append([method, 0, ""])
        except grpc.RpcError as error:
            said.append([method, error.code().value[0], error.details()])

    trace = [("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        unary = channel.unary_unary(f"/{SERVICE}/Get")
        stream = channel.unary_stream(f"/{SERVICE}/Watch")
        for number in range(20):
            outcome("Get", lambda number=number: unary(b"%d" % number, metadata=trace))
        outcome("Get", lambda: unary(b"none", metadata=trace))
        outcome("Nothing", lambda: channel.unary_unary(f"/{SERVICE}/Nothing")(b""))
        for request in (b"whole", b"broken"):
            outcome("Watch", lambda request=request: list(stream(request, metadata=trace)))
        outcome("Add", lambda: channel.stream_unary(f"/{SERVICE}/Add")(iter([b"x"] * 5)))
        outcome("Chat", lambda: list(channel.stream_stream(f"/{SERVICE}/Chat")(iter([b"a", b"b"]))))
        threads = [
            threading.Thread(target=outcome, args=("Watch", lambda: list(stream(b"together")))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outcome("Get", lambda: unary(b"slow", timeout=1))
    # A connection of its own: what follows a large message in the same write is beyond what the agent captures of it.
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        channel.unary_unary(f"/{SERVICE}/Large")(b"z" * 200_000)
    print(json.dumps(said))


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1] == "server" else call(sys.argv[2])
