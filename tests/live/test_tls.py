"""nginx with TLS, driven by curl: versions, a certificate, a client that does not trust it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.live.observed import Observed, need

TLS = 121

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:18443 ssl;
        server_name shop.test;
        ssl_certificate {folder}/shop.crt;
        ssl_certificate_key {folder}/shop.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{ return 200 "hello"; }}
    }}
}}
"""


def certificate(folder: Path) -> tuple[str, str]:
    """A new self-signed certificate for shop.test; the two dates that openssl reads from it."""
    key, chain = folder / "shop.key", folder / "shop.crt"
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=shop.test"
    command = [*words.split(), "-addext", "subjectAltName=DNS:shop.test", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(command, check=True, capture_output=True)
    printed = subprocess.run(
        ["openssl", "x509", "-in", chain, "-noout", "-dates", "-dateopt", "iso_8601"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    before, after = (line.split("=")[1].replace(" ", "T", 1) for line in printed.splitlines())
    return before, after


def test_versions_certificates_and_distrust(seen: Observed) -> None:
    need("nginx", "curl", "openssl")
    before, after = certificate(seen.folder)
    config = seen.folder / "nginx.conf"
    config.write_text(NGINX.format(folder=seen.folder))
    seen.start("nginx", "-c", config, "-p", seen.folder, port=18443)
    curl = ["curl", "-s", "--resolve", "shop.test:18443:127.0.0.1", "--cacert", str(seen.folder / "shop.crt")]
    url = "https://shop.test:18443/"
    for _ in range(5):
        assert seen.run(*curl, "--tls-max", "1.2", url) == "hello"
        assert seen.run(*curl, "--tlsv1.3", url) == "hello"
    # Several requests on one connection are one handshake.
    assert seen.run(*curl, url, url, url) == "hello" * 3
    # Trusts nothing: 60 is CURLE_PEER_FAILED_VERIFICATION.
    distrust = [*curl[:-2], "--tls-max", "1.2", "--capath", str(seen.folder), url]
    assert seen.run("sh", "-c", '"$@"; echo $?', "sh", *distrust).strip() == "60"

    for point in ("c-p", "s-p"):
        rows = seen.rows(TLS, point)
        assert len(rows) == 12
        assert {row["request_type"] for row in rows} == {"ClientHello"}
        assert {row["request_domain"] for row in rows} == {"shop.test"}
        assert {row["type"] for row in rows} == {2}
        assert [row["version"] for row in rows] == ["1.2", "1.3"] * 5 + ["1.3", "1.2"]
        attributes = [dict(zip(row["attribute_names"], row["attribute_values"], strict=True)) for row in rows]
        for row, named in zip(rows, attributes, strict=True):
            assert named["cipher_suite"].startswith("TLS_")
            readable = row["version"] == "1.2"
            assert named.get("server_cert_not_before") == (before if readable else None)
            assert named.get("server_cert_not_after") == (after if readable else None)
        assert [row["response_status"] for row in rows] == [0] * 11 + [4]
        assert (rows[-1]["response_code"], rows[-1]["response_exception"]) == (48, "unknown_ca")
    # What is encrypted is nobody's.
    assert not seen.others(TLS)
