"""A real ClickHouse server out of PyPI's chdb-core, for tests of the store over HTTP.

    python clickhouse_server.py HOME DATA PORT

chdb-core holds clickhouse-local with its listeners. The extension is loaded without `import chdb`, whose own engine
would take the place of this one. The entry point is private; these tests are where a change of it shows.
"""

import ctypes
import importlib.machinery
import importlib.util
import os
import sys
import types
from pathlib import Path

_CONFIG = (
    "<clickhouse><listen_host>127.0.0.1</listen_host><http_port>{port}</http_port>"
    "<max_server_memory_usage>2000000000</max_server_memory_usage></clickhouse>"
)
_SERVE = (
    "SYSTEM START LISTEN HTTP; SELECT sleepEachRow(1) FROM system.numbers SETTINGS max_block_size=1, "
    "function_sleep_max_microseconds_per_block=10000000000, max_execution_time=0 FORMAT Null"
)


def serve(home: Path, data: Path, port: int) -> None:
    """Serves until killed."""
    folder = home / ".clickhouse-local"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.xml").write_text(_CONFIG.format(port=port))
    os.environ["HOME"] = str(home)
    package = next(Path(path) / "chdb" for path in sys.path if (Path(path) / "chdb" / "_chdb.abi3.so").is_file())
    extension = str(package / "_chdb.abi3.so")
    os.chdir(package)
    ctypes.CDLL(extension, mode=sys.getdlopenflags() | os.RTLD_DEEPBIND)
    loader = importlib.machinery.ExtensionFileLoader("chdb._chdb", extension)
    spec = importlib.util.spec_from_file_location("chdb._chdb", extension, loader=loader)
    assert spec is not None
    parent = types.ModuleType("chdb")
    parent.__path__ = [str(package)]
    sys.modules["chdb"] = parent
    module = importlib.util.module_from_spec(spec)
    sys.modules["chdb._chdb"] = module
    loader.exec_module(module)
    os.chdir(home)
    module.query(_SERVE, "TabSeparated", path=str(data))


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
