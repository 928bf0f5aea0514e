"""Names of processes out of their command lines."""

import pytest

from deepflow.agent.process_name import process_name

CASES = [
    ("python3", ["python3", "-u", "/srv/shop/api.py", "--port", "80"], "api.py"),
    ("python3", ["/usr/bin/python3.11", "-m", "http.server", "8000"], "http.server"),
    ("python3", ["python3", "-c", "print(1)"], "python3"),
    ("python3", ["python3", "-W", "error", "worker.py"], "worker.py"),
    ("gunicorn", ["/opt/venv/bin/python", "/opt/venv/bin/gunicorn", "app:app"], "gunicorn"),
    ("node", ["node", "--require", "./x.js", "/srv/cart/server.js"], "server.js"),
    ("MainThread", ["node", "/srv/cart/server.js"], "server.js"),
    ("java", ["java", "-Xmx1g", "-jar", "/opt/pay/pay-1.0.jar"], "pay-1.0.jar"),
    (
        "java",
        ["/usr/bin/java", "-cp", "/a:/b", "org.apache.zookeeper.server.quorum.QuorumPeerMain", "zoo.cfg"],
        "QuorumPeerMain",
    ),
    ("java", ["java", "--module", "shop.pay/shop.pay.Main"], "Main"),
    ("nginx", ["nginx: master process /usr/sbin/nginx -g daemon off;"], "nginx"),
    ("redis-server", ["redis-server 127.0.0.1:6379"], "redis-server"),
    ("mariadbd", ["/usr/sbin/mariadbd", "--datadir=/x"], "mariadbd"),
    ("a-very-long-nam", ["/usr/bin/a-very-long-name-indeed"], "a-very-long-name-indeed"),
    ("kthreadd", [], "kthreadd"),
    ("worker", ["/bin/other"], "worker"),
    ("bash", ["-bash"], "bash"),
    ("php-fpm8.2", ["php-fpm: pool www"], "php-fpm8.2"),
    ("python3", ["python3"], "python3"),
]


@pytest.mark.parametrize(("comm", "arguments", "name"), CASES, ids=[case[2] + str(i) for i, case in enumerate(CASES)])
def test_process_name(comm: str, arguments: list[str], name: str) -> None:
    assert process_name(comm, arguments) == name
