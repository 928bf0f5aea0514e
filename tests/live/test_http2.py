"""HTTP/2 in clear text: nghttpd driven by nghttp and curl, with prior knowledge, after an upgrade, and joined late."""

from __future__ import annotations

from tests.live.observed import Observed, need

HTTP = 20
HTTP2 = 21
ROOT = "http://127.0.0.1:8080"


def serve(seen: Observed) -> None:
    need("nghttpd", "nghttp", "curl")
    folder = seen.folder / "www"
    (folder / "order").mkdir(parents=True)
    (folder / "order" / "17").write_text("seventeen\n")
    (folder / "big").write_bytes(b"x" * 300_000)
    seen.start("nghttpd", "-a", "127.0.0.1", "-d", folder, "--no-tls", "8080", port=8080)


def test_streams_of_one_connection(seen: Observed) -> None:
    serve(seen)
    paths = ["/order/17?x=1", "/big", "/missing", "/order/17"] * 5
    trace = "0af7651916cd43dd8448eb211c80319c"
    seen.run(
        *("nghttp", "-n", "--no-dep", "-H", f"traceparent: 00-{trace}-b7ad6b7169203331-01"),
        *(f"{ROOT}{path}" for path in paths),
    )
    for point in ("c-p", "s-p"):
        rows = seen.rows(HTTP2, point)
        asked = [(row["request_type"], row["request_resource"], row["response_code"]) for row in rows]
        # nghttp asks for what is named twice only once.
        assert sorted(asked) == sorted(
            ("GET", path, 404 if path == "/missing" else 200) for path in dict.fromkeys(paths)
        )
        assert {row["endpoint"] for row in rows} == {"/order/*", "/big", "/missing"}
        assert {row["response_status"] for row in rows if row["response_code"] == 404} == {4}
        assert {(row["type"], row["version"], row["request_domain"], row["trace_id"]) for row in rows} == {
            (2, "2", "127.0.0.1:8080", trace)
        }
        assert len({row["request_id"] for row in rows}) == len(rows)
        assert [row["response_length"] for row in rows if row["request_resource"] == "/big"] == [300_000]
    assert not seen.others(HTTP2)


def test_prior_knowledge(seen: Observed) -> None:
    serve(seen)
    body = seen.folder / "body"
    body.write_bytes(b"y" * 100_000)
    for _ in range(3):
        seen.run("curl", "-sSf", "--http2-prior-knowledge", f"{ROOT}/order/17")
    seen.run("curl", "-sSo", "/dev/null", "--http2-prior-knowledge", "--data-binary", f"@{body}", f"{ROOT}/big")
    for point in ("c-p", "s-p"):
        rows = seen.rows(HTTP2, point)
        asked = [(row["request_type"], row["request_resource"], row["response_code"]) for row in rows]
        assert asked == [*[("GET", "/order/17", 200)] * 3, ("POST", "/big", 200)]
        assert rows[3]["request_length"] == 100_000
    assert not seen.others(HTTP2)


H2O = """
user: root
listen: {{host: 127.0.0.1, port: 8080}}
hosts: {{default: {{paths: {{/: {{file.dir: {folder}}}}}}}}}
"""


def test_upgrade(seen: Observed) -> None:
    need("h2o", "nghttp")
    (seen.folder / "www").mkdir()
    for name in ("first", "second", "third"):
        (seen.folder / "www" / name).write_text(name)
    (seen.folder / "h2o.conf").write_text(H2O.format(folder=seen.folder / "www"))
    seen.start("h2o", "-c", seen.folder / "h2o.conf", port=8080)
    seen.run("nghttp", "-nu", f"{ROOT}/first", f"{ROOT}/second", f"{ROOT}/third")
    for point in ("c-p", "s-p"):
        # The request of the upgrade is one of HTTP/1.1; its response comes on stream 1.
        upgrades = [(row["request_resource"], row["response_code"]) for row in seen.rows(HTTP, point)]
        assert upgrades == [("/first", 101)]
        rows = seen.rows(HTTP2, point)
        assert [(row["request_id"], row["response_code"]) for row in rows if row["type"] == 1] == [(1, 200)]
        asked = {(row["request_resource"], row["response_code"]) for row in rows if row["type"] == 2}
        assert asked == {("/second", 200), ("/third", 200)}
        assert len(rows) == 3
