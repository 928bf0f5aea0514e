"""What scripted servers share: programs of this folder that answer real clients with bytes by a specification."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable


def answer_connections(serve: Callable[[socket.socket], None]) -> None:
    """Serve each connection to 127.0.0.1, port as the first argument of the program, in a thread, for ever."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
