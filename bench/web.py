"""An nginx of its own, for measurements."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

#: What nginx does with a request of `/item/1`, by name: the least that it can; a file of 612 bytes with an access log,
#: as Debian's default site has it.
SITES = {
    "short_answer": "access_log off; location / { return 200 'a short answer\\n'; }",
    "static_file": "access_log logs/access.log; sendfile on; tcp_nopush on; root site;"
    " location / { try_files $uri $uri/ =404; }",
}


@contextmanager
def nginx(directory: Path, listen: str, site: str = "short_answer", inside: Sequence[str] = ()) -> Iterator[None]:
    """An nginx with one worker for the time of a `with`.

    `directory`: a scratch folder for its files; `listen`: an address and port, or a port; `inside`: a command that runs
    it, such as that of a namespace.
    """
    prefix = directory / site
    for folder in ("logs", "site/item"):
        (prefix / folder).mkdir(parents=True)
    (prefix / "site/item/1").write_text("x" * 611 + "\n")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {prefix}/{kind};" for kind in kinds)
    config = prefix / "nginx.conf"
    config.write_text(
        f"user root; worker_processes 1; daemon off; pid {prefix}/nginx.pid; error_log {prefix}/error.log;\n"
        f"events {{ worker_connections 512; }}\nhttp {{ keepalive_requests 1000000; {temporary}\n"
        f" server {{ listen {listen}; {SITES[site]} }} }}\n"
    )
    command = [*inside, "nginx", "-p", str(prefix), "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(100):
                time.sleep(0.05)
                if (prefix / "nginx.pid").exists() or process.poll() is not None:
                    break
            if process.poll() is not None or not (prefix / "nginx.pid").exists():
                raise RuntimeError(f"nginx does not start: {(prefix / 'error.log').read_text()}")
            yield
        finally:
            process.terminate()
