"""dnsmasq, driven by dig: UDP, TCP, EDNS, names that do not exist."""

from __future__ import annotations

from tests.live.observed import Observed, need

DNS = 120


def test_udp_tcp_and_missing_names(seen: Observed) -> None:
    need("dnsmasq", "dig")
    words = "dnsmasq -k -p 15353 --listen-address=127.0.0.1 --bind-interfaces --no-resolv --no-hosts --no-daemon"
    zone = ["--conf-file=/dev/null", "--local=/test/", "--host-record=shop.test,127.0.0.9", "--txt-record=t.test,hi"]
    seen.start(*words.split(), "--user=root", "--pid-file=", *zone, port=15353)
    dig = ["dig", "@127.0.0.1", "-p", "15353", "+tries=1", "+time=30"]
    for _ in range(5):
        assert "127.0.0.9" in seen.run(*dig, "shop.test")
    assert "127.0.0.9" in seen.run(*dig, "+tcp", "shop.test")
    assert '"hi"' in seen.run(*dig, "+noedns", "t.test", "TXT")
    assert "NXDOMAIN" in seen.run(*dig, "missing.test")

    for point in ("c-p", "s-p"):
        rows = seen.rows(DNS, point)
        assert [row["request_resource"] for row in rows] == ["shop.test"] * 6 + ["t.test", "missing.test"]
        assert [row["request_type"] for row in rows] == ["A"] * 6 + ["TXT", "A"]
        assert [row["protocol"] for row in rows] == [17] * 5 + [6, 17, 17]
        assert [row["response_code"] for row in rows] == [0] * 7 + [3]
        assert [row["response_status"] for row in rows] == [0] * 7 + [4]
        assert all(row["response_result"].startswith("A=127.0.0.9 TTL=") for row in rows[:6])
        assert rows[6]["response_result"].startswith("TXT=hi TTL=")
        assert {row["type"] for row in rows} == {2}
    assert not seen.others(DNS)
