"""Thrift driven by Apache's Python library: framed binary and buffered compact, a declared exception, oneway."""

from __future__ import annotations

import subprocess

import pytest

from tests.live.observed import LIVE_PYTHON, Observed, need

THRIFT = 200

IDL = """
exception Gone { 1: string message }
service Shop {
  i32 order(1: string sku, 2: i32 count) throws (1: Gone gone)
  void ping()
  oneway void note(1: string text)
}
"""

COMMON = """
import sys
sys.path.insert(0, "gen-py")
from shop import Shop, ttypes
from thrift.protocol import TBinaryProtocol, TCompactProtocol
from thrift.transport import TSocket, TTransport
is_compact = sys.argv[1] == "compact"
Protocols = TCompactProtocol.TCompactProtocolFactory if is_compact else TBinaryProtocol.TBinaryProtocolFactory
Transports = TTransport.TBufferedTransportFactory if is_compact else TTransport.TFramedTransportFactory
"""

SERVER = f"""{COMMON}
from thrift.server import TServer
class Handler:
    def order(self, sku, count):
        if sku == "gone":
            raise ttypes.Gone("no more of gone")
        if sku == "bug":
            raise RuntimeError("secret")
        return count
    def ping(self):
        pass
    def note(self, text):
        pass
listener = TSocket.TServerSocket("127.0.0.1", 9090)
TServer.TThreadedServer(Shop.Processor(Handler()), listener, Transports(), Protocols()).serve()
"""

CLIENT = f"""{COMMON}
from thrift.Thrift import TApplicationException
transport = Transports().getTransport(TSocket.TSocket("127.0.0.1", 9090))
transport.open()
client = Shop.Client(Protocols().getProtocol(transport))
client.ping()
for count in range(20):
    assert client.order("a" * 100 * count, count) == count
for sku, error in (("gone", ttypes.Gone), ("bug", TApplicationException)):
    try:
        client.order(sku, 1)
    except error:
        pass
client.note("secret")
client.ping()
transport.close()
"""


@pytest.mark.parametrize("encoding", ["binary", "compact"])
def test_calls_errors_and_oneway(seen: Observed, encoding: str) -> None:
    need("thrift", str(LIVE_PYTHON))
    (seen.folder / "shop.thrift").write_text(IDL)
    subprocess.run(["thrift", "--gen", "py", "shop.thrift"], cwd=seen.folder, check=True)
    seen.start(LIVE_PYTHON, "-c", SERVER, encoding, port=9090)
    seen.python(CLIENT, encoding)
    for point in ("c-p", "s-p"):
        rows = seen.rows(THRIFT, point)
        assert [row["request_type"] for row in rows] == ["ping", *["order"] * 22, "note", "ping"]
        assert all(row["type"] == 2 and row["version"] == encoding for row in rows)
        failed = [(row["response_status"], row["response_exception"]) for row in rows if row["response_status"]]
        assert failed == [(3, "no more of gone"), (3, "Internal error")]
        assert "secret" not in str(rows)
    assert not seen.others(THRIFT)
