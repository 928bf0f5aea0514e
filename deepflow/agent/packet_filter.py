"""Expressions of pcap-filter(7) as programs for packet sockets, compiled by libpcap."""

from __future__ import annotations

import ctypes
from functools import cache

Program = list[tuple[int, int, int, int]]
"""Instructions of classic BPF: code, jump if true, jump if false, operand (`struct sock_filter`)."""

# Sonames of libpcap: Debian's, that of other distributions, a development install.
_LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
# Link types (DLT_*): frames with an Ethernet header, frames that begin with that of IP.
_ETHERNET, _RAW = 1, 12
_UNKNOWN_NETMASK = 0xFFFF_FFFF
_SNAP = 65_535
# Takes no frame.
_NOTHING: Program = [(6, 0, 0, 0)]


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


def compile_filter(expression: str) -> dict[str, Program]:
    """`extra_filter` of the core's configuration: the expression for frames with and without an Ethernet header.

    An expression about what only Ethernet has takes nothing from interfaces without it.

    Raises:
        ValueError: a sentence: the expression is none, or there is no libpcap.
    """
    ethernet = _compile(expression, _ETHERNET)
    try:
        raw = _compile(expression, _RAW)
    except ValueError:
        raw = _NOTHING
    return {"ethernet": ethernet, "raw": raw}


@cache
def _libpcap() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        handle, program = ctypes.c_void_p, ctypes.POINTER(_Program)
        for function, result, arguments in (
            ("pcap_open_dead", handle, (ctypes.c_int, ctypes.c_int)),
            ("pcap_compile", ctypes.c_int, (handle, program, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32)),
            ("pcap_geterr", ctypes.c_char_p, (handle,)),
            ("pcap_freecode", None, (program,)),
            ("pcap_close", None, (handle,)),
        ):
            entry = getattr(library, function)
            entry.restype, entry.argtypes = result, arguments
        return library
    raise ValueError("an expression is compiled by libpcap, which is not installed (Debian: apt install libpcap0.8)")


def _compile(expression: str, link_type: int) -> Program:
    library = _libpcap()
    handle = library.pcap_open_dead(link_type, _SNAP)
    if not handle:
        raise ValueError("libpcap has no memory to compile an expression")
    try:
        program = _Program()
        if library.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, _UNKNOWN_NETMASK) != 0:
            why = library.pcap_geterr(handle).decode(errors="replace")
            raise ValueError(f"{expression!r} is no expression of pcap-filter(7): {why}")
        found = [program.instructions[place] for place in range(program.length)]
        compiled = [(one.code, one.jt, one.jf, one.k) for one in found]
        library.pcap_freecode(ctypes.byref(program))
        return compiled
    finally:
        library.pcap_close(handle)
