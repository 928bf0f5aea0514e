"""HTTP/3 between aioquic and aioquic: a row a connection."""

from __future__ import annotations

import subprocess

from tests.live.observed import LIVE_PYTHON, Observed, need

QUIC = 207

SERVER = """
import asyncio, sys
from aioquic.asyncio import serve
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

class Server(QuicConnectionProtocol):
    h3 = None
    def quic_event_received(self, event):
        if self.h3 is None:
            self.h3 = H3Connection(self._quic)
        for one in self.h3.handle_event(event):
            if isinstance(one, HeadersReceived):
                self.h3.send_headers(one.stream_id, [(b":status", b"200")])
                self.h3.send_data(one.stream_id, b"x" * 5000, end_stream=True)
                self.transmit()

async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(sys.argv[1], sys.argv[2])
    await serve("127.0.0.1", 14433, configuration=configuration, create_protocol=Server)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
CLIENT = """
import asyncio, json, ssl
from aioquic.asyncio import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion

class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.h3, self.got, self.ended = H3Connection(self._quic), 0, asyncio.Event()
    def quic_event_received(self, event):
        for one in self.h3.handle_event(event):
            if isinstance(one, DataReceived):
                self.got += len(one.data)
                if one.stream_ended:
                    self.ended.set()

async def get(name, version):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=name)
    configuration.original_version = version
    configuration.supported_versions = [version]
    configuration.verify_mode = ssl.CERT_NONE
    async with connect("127.0.0.1", 14433, configuration=configuration, create_protocol=Client) as client:
        for _ in range(3):
            client.ended.clear()
            stream = client._quic.get_next_available_stream_id()
            head = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", name.encode()), (b":path", b"/")]
            client.h3.send_headers(stream, head, end_stream=True)
            client.transmit()
            await client.ended.wait()
        return client.got

async def main():
    got = [await get(f"shop{i}.test", QuicProtocolVersion.VERSION_1) for i in range(4)]
    got.append(await get("second.test", QuicProtocolVersion.VERSION_2))
    print(json.dumps(got))

asyncio.run(main())
"""


def test_a_row_a_connection(seen: Observed) -> None:
    need(str(LIVE_PYTHON), "openssl")
    key, chain = str(seen.folder / "key.pem"), str(seen.folder / "chain.pem")
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=shop.test"
    subprocess.run([*words.split(), "-keyout", key, "-out", chain], check=True, capture_output=True)
    seen.await_output(seen.start(LIVE_PYTHON, "-c", SERVER, chain, key), "ready")
    assert seen.python(CLIENT) == [15_000] * 5
    for point in ("c-p", "s-p"):
        rows = seen.rows(QUIC, point)
        assert [row["request_domain"] for row in rows] == [*(f"shop{i}.test" for i in range(4)), "second.test"]
        assert [row["version"] for row in rows] == ["1"] * 4 + ["2"]
        assert {row["request_type"] for row in rows} == {"Initial"}
        assert {(row["type"], row["protocol"], row["server_port"]) for row in rows} == {(2, 17, 14433)}
        assert {value for row in rows for value in row["attribute_values"]} == {"h3"}
    # What is encrypted is nobody's.
    assert not seen.others(QUIC)
