"""A trace as plain text: one line a span, box characters for the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_KIND = {0: "N", 3: "S", 4: "A"}
_STATUS = {0: "Success", 2: "Timeout", 3: "Server Error", 4: "Client Error", 5: "Unknown", 6: "Parse Failed"}
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_LONGEST_RESOURCE = 72


def tree_text(data: Mapping[str, Any], *, rules: bool = False, color: bool = False) -> str:
    """The tree of a DATA object of L7FlowTracing.

    A line: `[S] service observation_point protocol type resource status duration (+offset)`, where S is a system span,
    N a network span, A an application span, and the offset is the time since the trace began.

    Args:
        data: `Trace.to_dict()` or the DATA of the server's answer.
        rules: under each span, the rule that made its edge.
        color: dim the rules and brackets with terminal escapes.
    """
    spans: Sequence[Mapping[str, Any]] = data["tracing"]
    if not spans:
        return "The trace is empty."
    by_index = {span["id"]: span for span in spans}
    lines = [_headline(data)]
    begin = spans[0]["start_time_us"]
    roots = [span for span in spans if span["parent_id"] == -1]
    stack: list[tuple[Mapping[str, Any], str, str]] = [(span, "", "") for span in reversed(roots)]
    while stack:
        span, lead, indent = stack.pop()
        lines.append(lead + _line(span, begin, color))
        children = [by_index[index] for index in span["childs"]]
        if rules and span["set_parent_info"]:
            mark = indent + ("│  " if children else "   ")
            lines.append(mark + _dim(_printable(span["set_parent_info"]), color))
        for number, child in reversed(list(enumerate(children, 1))):
            last = number == len(children)
            stack.append((child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  ")))
    if data.get("truncated"):
        lines.append("The search met its limit: the trace may have more spans than these.")
    return "\n".join(lines)


def _headline(data: Mapping[str, Any]) -> str:
    spans, services = data["tracing"], data["services"]
    whole = max(span["end_time_us"] for span in spans) - min(span["start_time_us"] for span in spans)
    return f"{_count(len(spans), 'span')}, {_count(len(services), 'service')}, {duration_text(whole)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _line(span: Mapping[str, Any], begin: int, color: bool) -> str:
    kind = _KIND.get(span["signal_source"], "?")
    status = _STATUS.get(span["response_status"], str(span["response_status"]))
    if span["response_code"] is not None:
        status = f"{status} {span['response_code']}"
    name = _printable(span["service_uname"] or "-")
    offset = span["start_time_us"] - begin
    parts = [
        _dim(f"[{kind}]", color),
        f"{_BOLD}{name}{_PLAIN}" if color else name,
        span["tap_side"],
        _printable(span["l7_protocol_str"]) or str(span["l7_protocol"]),
        _printable(span["request_type"]),
        _shortened(_printable(span["request_resource"] or span["endpoint"])),
        status,
        duration_text(span["duration"]) if span["type"] == 2 else "no response" if span["type"] == 0 else "no request",
        f"({'-' if offset < 0 else '+'}{duration_text(abs(offset))})",
        "outside its parent" if span.get("outside_parent") else "",
    ]
    return " ".join(part for part in parts if part)


def duration_text(us: int) -> str:
    """`850 µs`, `12.35 ms`, `1.20 s`."""
    if us < 1_000:
        return f"{us} µs"
    return f"{us / 1_000:.2f} ms" if us < 1_000_000 else f"{us / 1_000_000:.2f} s"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_RESOURCE else text[: _LONGEST_RESOURCE - 1] + "…"


def _printable(text: str) -> str:
    # What was captured is foreign: it must not break the line or talk to the terminal.
    return "".join(char if char.isprintable() else " " for char in str(text))


def _dim(text: str, color: bool) -> str:
    return f"{_DIM}{text}{_PLAIN}" if color else text
