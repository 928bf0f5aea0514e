"""Association keys of sessions, as SQL, in one place: the store fills `flow_log.trace_key` with them, and the trace
search computes the same ones for its lookups.

A key is cityHash64 of its kind and its value. The two syscall trace ids of a session are of one kind, and so are its
two X-Request-IDs: an id means the same wherever it stands.

Address translation rewrites ports and leaves TCP sequence numbers alone, so a session with request and response has a
key of both numbers, 64 bits that no two calls share by chance. One number alone is 32 bits and collides within an hour
of a busy host: it is taken together with both ports, so that a request without a response finds the sightings that have
one, on its side of a translation. The number of a response stands in a key of its own only where the request was not
seen: a third key in every session would cost a third more space, and no other row needs it.

UDP has no such numbers: there the id that the protocol gives a request stands for them, with both ports. Ids of DNS and
of ICMP echo have 16 bits: the name (the identifier and the address) is added, which a translation leaves alone as
well, and the time. Times are cut into spans that overlap by half, so that two sightings less than `EXCHANGE_US` apart
share one of two keys.

A request that was given up and the response that came after all are two rows; the number of the message on its socket
leads from one to the other.
"""

from collections.abc import Mapping

KINDS = (
    *("tcp_exchange", "tcp_seq_request", "tcp_seq_response", "udp_exchange", "named_exchange", "half_session"),
    *("syscall_trace_id", "x_request_id", "trace_id"),
)
#: Sightings of one named exchange (DNS, echo) that began less than this apart share a key, µs.
EXCHANGE_US = 1_000_000
_DNS, _PING = 120, 122


def tcp_exchange(request_seq: str, response_seq: str) -> str:
    """Key of both TCP sequence numbers; arguments are SQL expressions. Valid for protocol 6 and both ≠ 0."""
    return f"cityHash64('tcp_exchange', toUInt32({request_seq}), toUInt32({response_seq}))"


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


def named_exchange(request_id: str, name: str, start_time: str, later: bool) -> str:
    """Key of a datagram by its id, what it asks for, and the time (`later`: in the second of the two ways to cut it).

    Arguments are SQL expressions; valid with an id and a name.
    """
    moment = f"toUnixTimestamp64Micro({start_time}){f' + {EXCHANGE_US}' if later else ''}"
    span = f"toInt64(intDiv({moment}, {2 * EXCHANGE_US}))"
    return f"cityHash64('named_exchange', toUInt64(ifNull({request_id}, 0)), toString({name}), {span}, {int(later)})"


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
            *("protocol", "l7_protocol", "client_port", "server_port", "req_tcp_seq", "resp_tcp_seq", "trace_id"),
            *("syscall_trace_id_request", "syscall_trace_id_response", "x_request_id_0", "x_request_id_1"),
            *("type", "agent_id", "flow_id", "request_id", "syscall_cap_seq_0", "syscall_cap_seq_1"),
            *("request_resource", "start_time", "is_ipv4", "ip4_1", "ip6_1"),
        )
    }
    ports = column["client_port"], column["server_port"]
    request, response = (f"{column[name]} != 0" for name in ("req_tcp_seq", "resp_tcp_seq"))
    tcp = f"{column['protocol']} = 6"
    candidates = [
        (f"{tcp} AND {request} AND {response}", tcp_exchange(column["req_tcp_seq"], column["resp_tcp_seq"])),
        (f"{tcp} AND {request}", tcp_seq_request(column["req_tcp_seq"], *ports)),
        (f"{tcp} AND {response} AND NOT ({request})", tcp_seq_response(column["resp_tcp_seq"], *ports)),
    ]
    candidates += _datagrams(column)
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


def _datagrams(column: Mapping[str, str]) -> list[tuple[str, str]]:
    identified = f"{column['protocol']} IN (17, 1, 58) AND {column['request_id']} IS NOT NULL"
    named = f"{column['l7_protocol']} IN ({_DNS}, {_PING}) AND {column['request_resource']} != ''"
    # Many hosts count their echoes from 1 under a small identifier: whom they ask tells them apart.
    server = f"if({column['is_ipv4']} = 1, toString({column['ip4_1']}), toString({column['ip6_1']}))"
    resource = f"toString({column['request_resource']})"
    name = f"if({column['l7_protocol']} = {_PING}, concat({resource}, ' ', {server}), {resource})"
    found = [
        (f"{identified} AND {named}", named_exchange(column["request_id"], name, column["start_time"], later))
        for later in (False, True)
    ]
    ports = column["client_port"], column["server_port"]
    return [*found, (f"{identified} AND NOT ({named})", udp_exchange(column["request_id"], *ports))]


def _tcp_seq(kind: str, seq: str, client_port: str, server_port: str) -> str:
    return f"cityHash64('{kind}', toUInt32({seq}), toUInt16({client_port}), toUInt16({server_port}))"
