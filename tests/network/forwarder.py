"""Moves frames between two interfaces of the namespace it is started in, each after a delay: a slow piece of wire.

    python forwarder.py FIRST SECOND DELAY_US

Prints "forwarding" when it has begun; runs until it is stopped. Frames keep their order. Only the standard library,
so that it starts quickly and is no part of the product.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import selectors
import socket
import struct
import sys
import time
from collections import deque

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC, PACKET_VNET_HDR = 1, 1, 15
PACKET_IGNORE_OUTGOING = 23
SO_RCVBUFFORCE = 33
PR_SET_PDEATHSIG, PR_SET_TIMERSLACK = 1, 29
#: A frame of 64 KiB with the header that says how to cut it (struct virtio_net_hdr, include/uapi/linux/virtio_net.h).
LARGEST = 65536 + 10 + 18
#: Frames that wait at most, as on a real wire with a real buffer.
QUEUE = 10_000


def opened(interface: str) -> socket.socket:
    """A packet socket for everything that comes in at an interface, offload state included."""
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    one.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    one.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    one.bind((interface, ETH_P_ALL))
    request = struct.pack("iHH8s", socket.if_nametoindex(interface), PACKET_MR_PROMISC, 0, b"")
    one.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
    one.setblocking(False)
    return one


def main(first: str, second: str, delay_s: float) -> None:
    """Forward for ever."""
    library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    library.prctl(PR_SET_PDEATHSIG, 15, 0, 0, 0)
    library.prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    left, right = opened(first), opened(second)
    ready = selectors.DefaultSelector()
    ready.register(left, selectors.EVENT_READ, right)
    ready.register(right, selectors.EVENT_READ, left)
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()
    print("forwarding", flush=True)
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for key, _ in ready.select(timeout):
            source = key.fileobj
            assert isinstance(source, socket.socket)
            arrived = time.monotonic()
            for _ in range(64):  # then the other side's turn
                try:
                    frame = source.recv(LARGEST)
                except BlockingIOError:
                    break
                if len(waiting) < QUEUE:
                    waiting.append((arrived + delay_s, key.data, frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, sink, frame = waiting.popleft()
            try:
                sink.send(frame)
            except OSError as refusal:  # an interface that is down, or a full queue: the frame is lost, as on a wire
                os.write(2, f"forwarder: a frame of {len(frame)} bytes is lost: {refusal}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) / 1e6)
