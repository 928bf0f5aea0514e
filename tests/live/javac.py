"""Programs in Java of these tests: `java/NAME.java`, compiled against the class path of `java/LIBRARIES.xml`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.live.maven import class_path


def program(name: str, libraries: str, folder: Path, *beside: str) -> list[str]:
    """The command line that runs `live.NAME`, compiled into `folder` with `java/BESIDE.java`; its arguments follow."""
    if not shutil.which("javac"):
        pytest.skip("not installed: javac (tests/live/packages.txt)")
    jars = class_path(libraries)
    sources = [Path(__file__).parent / f"java/{one}.java" for one in (name, *beside)]
    classes = folder / "classes"
    subprocess.run(["javac", "-cp", jars, "-d", classes, *sources], check=True, capture_output=True)
    # Libraries older than Java 17 look into the classes of the language.
    opened = ["--add-opens=java.base/java.lang=ALL-UNNAMED", "--add-opens=java.base/java.util=ALL-UNNAMED"]
    return ["java", "-Xmx128m", "-XX:+UseSerialGC", *opened, "-cp", f"{classes}:{jars}", f"live.{name}"]
