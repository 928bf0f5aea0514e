"""php-fpm behind nginx, driven by curl: scripts, errors, a header of a trace."""

from __future__ import annotations

from tests.live.observed import Observed, need

FASTCGI = 44

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{
    access_log off;
    upstream php {{ server 127.0.0.1:19000; keepalive 2; }}
    server {{
        listen 127.0.0.1:18080;
        root {folder};
        location / {{
            include /etc/nginx/fastcgi.conf;
            fastcgi_keep_conn on;
            fastcgi_pass php;
        }}
    }}
}}
"""
POOL = """
[global]
daemonize = no
error_log = /dev/stderr
[shop]
user = www-data
group = www-data
listen = 127.0.0.1:19000
pm = static
pm.max_children = 2
"""
SCRIPT = """<?php
if (isset($_GET['fail'])) { http_response_code((int) $_GET['fail']); }
echo str_repeat('x', (int) ($_GET['size'] ?? 1));
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_scripts_errors_and_trace_context(seen: Observed) -> None:
    need("nginx", "php-fpm8.2", "curl")
    seen.folder.chmod(0o755)
    for parent in list(seen.folder.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    (seen.folder / "index.php").write_text(SCRIPT)
    (seen.folder / "pool.conf").write_text(POOL)
    (seen.folder / "nginx.conf").write_text(NGINX.format(folder=seen.folder))
    seen.start("php-fpm8.2", "-n", "-y", seen.folder / "pool.conf", port=19000)
    seen.start("nginx", "-c", seen.folder / "nginx.conf", "-p", seen.folder, port=18080)
    base = "http://127.0.0.1:18080"
    for i in range(10):
        assert seen.run("curl", "-s", f"{base}/index.php?i={i}&size=3") == "xxx"
    # A body of many records.
    assert len(seen.run("curl", "-s", f"{base}/index.php?size=500000")) == 500_000
    seen.run("curl", "-s", "-d", "a=1", f"{base}/index.php?fail=503")
    seen.run("curl", "-s", f"{base}/missing.php")
    seen.run("curl", "-s", "-H", f"traceparent: 00-{TRACE}-b7ad6b7169203331-01", f"{base}/index.php")

    for point in ("c-p", "s-p"):
        rows = seen.rows(FASTCGI, point)
        assert [row["request_resource"] for row in rows] == [
            *(f"/index.php?i={i}&size=3" for i in range(10)),
            "/index.php?size=500000",
            "/index.php?fail=503",
            "/missing.php",
            "/index.php",
        ]
        assert [row["endpoint"] for row in rows] == ["/index.php"] * 12 + ["/missing.php", "/index.php"]
        assert [row["request_type"] for row in rows] == ["GET"] * 11 + ["POST", "GET", "GET"]
        assert [row["response_code"] for row in rows] == [200] * 11 + [503, 404, 200]
        assert [row["response_status"] for row in rows] == [0] * 11 + [3, 4, 0]
        assert {row["request_domain"] for row in rows} == {"127.0.0.1:18080"}
        assert {row["type"] for row in rows} == {2}
        assert [row["trace_id"] for row in rows] == [""] * 13 + [TRACE]
    # The same requests, as curl and nginx speak HTTP.
    assert {row["biz_protocol"] for row in seen.others(FASTCGI)} == {"HTTP"}
