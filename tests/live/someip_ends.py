"""A service of SOME/IP and its client, by `someip`: `service ADDRESS` or `client ADDRESS`.

The service announces itself by multicast, answers over UDP, sends events to who subscribes, and answers over TCP. The
client prints, as JSON, what it got.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys

from someip.config import Eventgroup
from someip.header import L4Protocols, SOMEIPHeader, SOMEIPMessageType, SOMEIPReader, SOMEIPReturnCode
from someip.sd import ServiceDiscoveryProtocol, SOMEIPDatagramProtocol
from someip.service import MalformedMessageError, SimpleEventgroup, SimpleService

SERVICE, GROUP, EVENT, VERSION = 0x1234, 0x0010, 0x0021, 2
ECHO, QUIET, NEVER = 0x0001, 0x0002, 0x0003
CLIENT_ID = 0x0042
PORT, GROUP_ADDRESS = 30501, "224.244.224.245"
CALLS, EVENTS = 20, 5


class Doors(SimpleService):
    """Echoes, keeps quiet, refuses; the event is a counter."""

    service_id, version_major, version_minor = SERVICE, VERSION, 0

    def __init__(self, instance: int) -> None:
        super().__init__(instance)
        self.register_method(ECHO, self.echo)
        self.register_method(QUIET, lambda message, address: None)
        self.register_method(NEVER, lambda message, address: None)
        self.group = SimpleEventgroup(self, GROUP)
        self.group.values[EVENT] = b"\0"
        self.register_eventgroup(self.group)

    @staticmethod
    def echo(message: SOMEIPHeader, _: object) -> bytes:
        if not message.payload:
            raise MalformedMessageError
        return message.payload * 2


class Stream:
    """The same service over TCP: it answers the last of a batch first."""

    @staticmethod
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        batch: list[SOMEIPHeader] = []
        while (message := await SOMEIPReader(reader).read()) is not None:
            batch.append(message)
            if message.payload != b"last":
                continue
            for one in reversed(batch):
                answer = SOMEIPHeader(
                    one.service_id, one.method_id, one.client_id, one.session_id, VERSION, SOMEIPMessageType.RESPONSE
                )
                writer.write(answer.build())
            batch.clear()
        writer.close()


class Client(SOMEIPDatagramProtocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        super().__init__()
        self.got: asyncio.Queue[SOMEIPHeader] = asyncio.Queue()

    def message_received(self, someip_message: SOMEIPHeader, addr: object, multicast: bool) -> None:
        self.got.put_nowait(someip_message)


async def discovery(address: str) -> ServiceDiscoveryProtocol:
    """What finds and offers services, on this address."""
    *_, found = await ServiceDiscoveryProtocol.create_endpoints(
        family=socket.AF_INET, local_addr=address, multicast_addr=GROUP_ADDRESS
    )
    return found


async def serve(address: str) -> None:
    """The service, until it is stopped."""
    announced = await discovery(address)
    announced.timings.CYCLIC_OFFER_DELAY = 0.2
    doors = await Doors.start_datagram_endpoint(1, announced.announcer, (address, PORT))
    announced.start()
    await asyncio.start_server(Stream.serve, address, PORT)
    print("serves", flush=True)
    while not doors.group.subscribed_endpoints:
        await asyncio.sleep(0.05)
    for number in range(1, EVENTS):
        await asyncio.sleep(0.05)
        doors.group.values[EVENT] = bytes([number])
        doors.group.notify_once([EVENT])
    await asyncio.Event().wait()


def request(method: int, session: int, payload: bytes, version: int = VERSION, service: int = SERVICE) -> bytes:
    """The bytes of a request."""
    kind = SOMEIPMessageType.REQUEST_NO_RETURN if method == QUIET else SOMEIPMessageType.REQUEST
    return SOMEIPHeader(service, method, CLIENT_ID, session, version, kind, payload=payload).build()


async def ask(address: str, service: str) -> None:
    """Calls over UDP, events, calls over TCP."""
    events_at, events = await Client.create_unicast_endpoint(local_addr=(address, 0))
    found = await discovery(address)
    found.start()
    found.discovery.find_subscribe_eventgroup(
        Eventgroup(SERVICE, 1, VERSION, GROUP, events_at.get_extra_info("sockname"), L4Protocols.UDP)
    )
    heard = [await asyncio.wait_for(events.got.get(), 30) for _ in range(EVENTS)]
    _, calls = await Client.create_unicast_endpoint(remote_addr=(service, PORT), local_addr=(address, 0))
    codes: list[SOMEIPReturnCode] = []
    wrong = [(ECHO, b"", VERSION, SERVICE), (0x0099, b"x", VERSION, SERVICE), (ECHO, b"x", 9, SERVICE), (1, b"x", 2, 7)]
    right = [(ECHO, b"four", VERSION, SERVICE)] * CALLS
    for session, (method, payload, version, whose) in enumerate(right + wrong, 1):
        calls.send(request(method, session, payload, version, whose))
        codes.append((await asyncio.wait_for(calls.got.get(), 30)).return_code)
    calls.send(request(QUIET, 100, b"said"))
    calls.send(request(NEVER, 101, b"lost"))
    reader, writer = await asyncio.open_connection(service, PORT)
    writer.writelines(request(ECHO, 200 + number, b"more") for number in range(CALLS))
    writer.write(request(ECHO, 300, b"last"))
    stream = SOMEIPReader(reader)
    sessions = [(await stream.read()).session_id for _ in range(CALLS + 1)]
    writer.close()
    print(json.dumps({"codes": codes, "events": [event.payload[0] for event in heard], "sessions": sessions}))


if __name__ == "__main__":
    logging.disable()
    asyncio.run(serve(sys.argv[2]) if sys.argv[1] == "service" else ask(sys.argv[2], sys.argv[3]))
