"""Association keys of sessions, as SQL, in one place: the store fills `flow_log.trace_key` with them, and the trace
search computes the same ones for its lookups.

A key is cityHash64 of its kind and its value. The two syscall trace ids of a session are of one kind, and so are its
two X-Request-IDs: an id means the same wherever it stands. TCP sequence numbers are taken together with both ports,
because 32 bits alone collide within an hour of a busy host; request and response are different kinds, as they count
different directions. UDP has no such numbers: there the id that the protocol gives a request stands for them. A request
that was given up and the response that came after all are two rows; the number of the message on its socket leads from
one to the other.
"""

KINDS = (
    *("tcp_seq_request", "tcp_seq_response", "udp_exchange", "half_session"),
    *("syscall_trace_id", "x_request_id", "trace_id"),
)


def tcp_seq_request(seq: str, client_port: str, server_port: str) -> str:
    """Key of a request's TCP sequence number; arguments are SQL expressions. Valid for protocol 6 and seq ≠ 0."""
    return _tcp_seq("tcp_seq_request", seq, client_port, server_port)


def tcp_seq_response(seq: str, client_port: str, server_port: str) -> str:
    """Key of a response's TCP sequence number; arguments are SQL expressions. Valid for protocol 6 and seq ≠ 0."""
    return _tcp_seq("tcp_seq_response", seq, client_port, server_port)


def udp_exchange(request_id: str, client_port: str, server_port: str) -> str:
    """Key of a UDP request by its protocol's id; arguments are SQL expressions. Valid for protocol 17 with an id."""
    number = f"toUInt64(ifNull({request_id}, 0))"
    return f"cityHash64('udp_exchange', {number}, toUInt16({client_port}), toUInt16({server_port}))"


def half_session(agent_id: str, flow_id: str, number: str) -> str:
    """Key of a lone request or response by the number of the response on its socket; arguments are SQL expressions.

    Valid for types 0 (its own number + 1) and 1 where the connection is known (flow_id ≠ 0).
    """
    return f"cityHash64('half_session', toUInt16({agent_id}), toUInt64({flow_id}), toUInt32({number}))"


def syscall_trace_id(value: str) -> str:
    """Key of a causal context (of the request or the response); the argument is an SQL expression ≠ 0."""
    return f"cityHash64('syscall_trace_id', toUInt64({value}))"


def x_request_id(value: str) -> str:
    """Key of an X-Request-ID (of the request or the response); the argument is an SQL expression ≠ ''."""
    return f"cityHash64('x_request_id', toString({value}))"


def trace_id(value: str) -> str:
    """Key of a trace id found in a header; the argument is an SQL expression ≠ ''."""
    return f"cityHash64('trace_id', toString({value}))"


def keys_of_row(prefix: str = "") -> str:
    """All keys of one row as SQL of type Array(UInt64), each once; works on rows of `l7_flow_log`.

    Args:
        prefix: table alias with its dot, for example `l.`.
    """
    column = {
        name: prefix + name
        for name in (
            *("protocol", "client_port", "server_port", "req_tcp_seq", "resp_tcp_seq", "trace_id"),
            *("syscall_trace_id_request", "syscall_trace_id_response", "x_request_id_0", "x_request_id_1"),
            *("type", "agent_id", "flow_id", "request_id", "syscall_cap_seq_0", "syscall_cap_seq_1"),
        )
    }
    ports = column["client_port"], column["server_port"]
    candidates = [
        (_tcp(column["protocol"], column["req_tcp_seq"]), tcp_seq_request(column["req_tcp_seq"], *ports)),
        (_tcp(column["protocol"], column["resp_tcp_seq"]), tcp_seq_response(column["resp_tcp_seq"], *ports)),
    ]
    candidates.append(
        (
            f"{column['protocol']} = 17 AND {column['request_id']} IS NOT NULL",
            udp_exchange(column["request_id"], *ports),
        )
    )
    answer = f"if({column['type']} = 0, {column['syscall_cap_seq_0']} + 1, {column['syscall_cap_seq_1']})"
    candidates.append(
        (
            f"{column['type']} < 2 AND {column['flow_id']} != 0",
            half_session(column["agent_id"], column["flow_id"], answer),
        )
    )
    contexts = [column[name] for name in ("syscall_trace_id_request", "syscall_trace_id_response")]
    requests = [column[name] for name in ("x_request_id_0", "x_request_id_1")]
    candidates += [(f"{name} != 0", syscall_trace_id(name)) for name in contexts]
    candidates += [(f"{name} != ''", x_request_id(name)) for name in requests]
    candidates.append((f"{column['trace_id']} != ''", trace_id(column["trace_id"])))
    keys = ", ".join(f"if({condition}, {key}, toUInt64(0))" for condition, key in candidates)
    return f"arrayDistinct(arrayFilter(k -> k != 0, [{keys}]))"


def _tcp(protocol: str, seq: str) -> str:
    return f"{protocol} = 6 AND {seq} != 0"


def _tcp_seq(kind: str, seq: str, client_port: str, server_port: str) -> str:
    return f"cityHash64('{kind}', toUInt32({seq}), toUInt16({client_port}), toUInt16({server_port}))"
