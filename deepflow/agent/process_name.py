"""The name a person would give a process, out of its command line."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_INTERPRETER = re.compile(r"^(python|node|nodejs|php|lua|luajit|ruby|perl|bun|deno)[\d.]*$")
# options of interpreters that take the next word as their value
_VALUE_OPTIONS = {"-W", "-X", "-Q", "-I", "-r", "--require", "--import", "--loader", "-L"}
_JAVA_VALUE_OPTIONS = {"-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules", "--add-opens"}
_COMM_LENGTH = 15  # TASK_COMM_LEN - 1


def process_name(comm: str, arguments: list[str]) -> str:
    """Name of a process: the script or jar of an interpreter, else the program.

    The rules are those of DeepFlow's default process matcher: ``java -jar X`` → X, a Java main class, the script of
    python, node, php, lua (and ruby, perl), else the program's own name. A title set by the program
    (``nginx: worker process``) counts up to its colon.

    >>> process_name("python3", ["python3", "-u", "/srv/api.py", "--port", "80"])
    'api.py'
    >>> process_name("nginx", ["nginx: worker process"])
    'nginx'
    """
    if not arguments or not arguments[0]:
        return comm
    program = PurePosixPath(arguments[0].split(" ")[0].removesuffix(":")).name.removeprefix("-")
    if program == "java":
        return _java(arguments[1:]) or program
    if _INTERPRETER.match(program):
        return _script(program, arguments[1:]) or program
    # A thread may rename itself and a shell may run anything under another name: the kernel's name decides
    # unless it is only the cut-off form of the program's.
    return program if program[:_COMM_LENGTH] == comm or not comm else comm


def _script(program: str, arguments: list[str]) -> str | None:
    words = iter(arguments)
    for word in words:
        if word == "-m" and program.startswith("python"):
            return next(words, None)
        if word in ("-c", "-e", "--eval", "-p", "--print", "-"):
            return None
        if word in _VALUE_OPTIONS:
            next(words, None)
        elif not word.startswith("-"):
            return PurePosixPath(word).name or None
    return None


def _java(arguments: list[str]) -> str | None:
    words = iter(arguments)
    for word in words:
        if word == "-jar":
            return PurePosixPath(next(words, "")).name or None
        if word in _JAVA_VALUE_OPTIONS:
            next(words, None)
        elif word in ("-m", "--module"):
            return next(words, "").rpartition("/")[2].rpartition(".")[2] or None
        elif not word.startswith("-"):
            return word.rpartition(".")[2] or None
    return None
