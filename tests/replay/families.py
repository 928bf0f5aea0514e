"""What a line of ``FOLDER/*.expected.jsonl`` (a message in DeepFlow's own parser tests) says of the columns of a row.

Fields and columns are those of the FORMAT.md that lies beside the captures, section "Conventions", and of its notes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Info = dict[str, Any]
Value = str | Callable[[Info], Any]

STATUS = {"ok": 0, "timeout": 2, "servererror": 3, "clienterror": 4, "unknown": 5, "parsefailed": 6}


@dataclass(frozen=True)
class Family:
    """How the lines of one folder read."""

    #: l7_protocol of the rows (docs/protocols.md).
    protocols: tuple[int, ...]
    #: Columns that a request (or a session) and a response fill, and the field of the line: a name or a function.
    request: dict[str, Value]
    response: dict[str, Value]
    #: What request and response have in common; None: in order.
    key: Callable[[Info], Any] | None = None
    #: Request, Response, Session, or "" for a line that is no row.
    kind: Callable[[Info], str] = lambda info: info["msg_type"]
    #: Settings that DeepFlow's test of this folder sets, as in the agent's YAML file.
    settings: dict[str, Any] = field(default_factory=dict)
    #: Fields that are compared by this function of both values.
    alike: dict[str, Callable[[Any], Any]] = field(default_factory=dict)


def status(name: str) -> Callable[[Info], Any]:
    """`response_status` out of a field with its name."""
    return lambda info: STATUS.get(str(info.get(name)).lower().replace("_", ""))


def text(name: str) -> Callable[[Info], str]:
    return lambda info: "" if info.get(name) is None else str(info[name])


def trace(info: Info) -> str:
    ids = info.get("trace_ids") or {}
    ids = ids.get("_value") if isinstance(ids, dict) else ids
    return str(ids[0]["field"] if isinstance(ids[0], dict) else ids[0]) if ids else ""


def span(info: Info) -> str:
    said = info.get("span_id")
    return str((said.get("field") if isinstance(said, dict) else said) or "")


def failure(message: str, state: str) -> Callable[[Info], str]:
    """The text of an error, only where the status is one."""
    return lambda info: (info.get(message) or "") if str(info.get(state)).lower() not in ("ok", "unknown") else ""


TRACE: dict[str, Value] = {"trace_id": trace, "span_id": span}


def _http_type(info: Info) -> str:
    return "POST" if info["proto"] == "Grpc" else str(info["method"]).upper()


def _http_code(info: Info) -> Any:
    grpc = info["grpc_status_code"]
    return grpc if grpc is not None else info["status_code"]


def _client_ip(info: Info) -> str:
    return str((info["client_ip"] or {"field": ""})["field"])


def _dubbo_status(info: Info) -> int:
    code = info["status_code"]
    return 0 if code == 20 else 4 if code in (30, 40, 90) else 3


COMMANDS = {
    2: "INIT_DB",
    3: "QUERY",
    4: "FIELD_LIST",
    22: "STMT_PREPARE",
    23: "STMT_EXECUTE",
    1: "QUIT",
    25: "STMT_CLOSE",
}


def _first_key(document: Any) -> str:
    found = re.match(r'\s*\{\s*"([^"]+)"', str(document))
    return found[1] if found else str(document)


def _amqp_type(info: Info) -> Any:
    if info.get("req_type"):
        return info["req_type"]
    return f"{info['class_id']}.{info['method_id']}" if info.get("method_id") else info["frame_type"]


def _amqp_key(info: Info) -> Any:
    return info["channel_id"], info.get("class_id"), str(info.get("method_id")).removesuffix("Ok")


def _mqtt_packet(info: Info) -> str:
    packet = info["pkt_type"]
    return str(packet["_type"] if isinstance(packet, dict) else packet)


def _mqtt_kind(info: Info) -> str:
    packet, said = _mqtt_packet(info), info["pkt_type"]
    if packet == "Publish":
        return "Session" if said["qos"] == "AtMostOnce" else "Request"
    if packet in ("Connect", "Subscribe", "Unsubscribe", "Pingreq", "Pubrel"):
        return "Request"
    return "Session" if packet in ("Disconnect", "Pubrec") else "Response"


def _nats_type(info: Info) -> str:
    message = info["message"]
    return str(message["_variant"] if isinstance(message, dict) else message).upper()


def _nats_subject(info: Info) -> str:
    message = info["message"]
    said = message["_value"] if isinstance(message, dict) else None
    return str(said.get("subject") or "") if isinstance(said, dict) else ""


#: BaseCommand.Type of PulsarApi.proto.
PULSAR = dict(
    enumerate(
        (
            *("CONNECT", "CONNECTED", "SUBSCRIBE", "PRODUCER", "SEND", "SEND_RECEIPT", "SEND_ERROR", "MESSAGE", "ACK"),
            *("FLOW", "UNSUBSCRIBE", "SUCCESS", "ERROR", "CLOSE_PRODUCER", "CLOSE_CONSUMER", "PRODUCER_SUCCESS"),
            *("PING", "PONG", "REDELIVER_UNACKNOWLEDGED_MESSAGES", "PARTITIONED_METADATA"),
            *("PARTITIONED_METADATA_RESPONSE", "LOOKUP", "LOOKUP_RESPONSE"),
        ),
        2,
    )
)

FAMILIES: dict[str, Family] = {
    "http": Family(
        protocols=(20, 21, 41, 49),
        # A line without method and status stands for a packet that begins no message.
        kind=lambda info: info["msg_type"] if info["method"] or info["status_code"] else "",
        key=lambda info: info["stream_id"],
        request={
            "request_type": _http_type,
            "request_resource": lambda info: info["service_name"] if info["proto"] == "Grpc" else info["path"],
            "request_domain": "host",
            "endpoint": "endpoint",
            "request_id": "stream_id",
            "request_length": "req_content_length",
            "version": lambda info: info["version"].removeprefix("V").replace("_", "."),
            "http_proxy_client": _client_ip,
            "x_request_id_0": lambda info: info["x_request_id_0"]["field"],
            **TRACE,
        },
        response={
            "response_status": status("status"),
            "response_code": _http_code,
            "response_length": "resp_content_length",
            "x_request_id_1": lambda info: info["x_request_id_1"]["field"],
        },
    ),
    "dns": Family(
        protocols=(120,),
        key=lambda info: info["request_id"],
        request={
            "request_type": "request_type",
            "request_resource": "request_resource",
            "request_domain": lambda info: info["request_resource"] if info["request_type"] in ("A", "AAAA") else "",
            "endpoint": "request_resource",
            "request_id": "request_id",
        },
        response={
            "response_status": status("response_status"),
            "response_code": "response_code",
            "response_result": text("response_result"),
        },
    ),
    "mysql": Family(
        protocols=(60,),
        kind=lambda info: "" if info["msg_type"] == "Other" else str(info["msg_type"]),
        request={
            "request_type": lambda info: COMMANDS.get(info["request_type"], ""),
            "request_resource": text("request_resource"),
            "endpoint": text("endpoint"),
            "sql_affected_rows": lambda info: None,
            **TRACE,
        },
        response={
            "response_status": status("response_status"),
            "response_exception": text("response_execption"),
            "sql_affected_rows": lambda info: info.get("sql_affected_rows") or None,
        },
        alike={"request_type": lambda name: name.removeprefix("COM_"), "sql_affected_rows": lambda rows: rows or None},
    ),
    "redis": Family(
        protocols=(80,),
        kind=lambda info: "Request" if info["request"] else "Response",
        request={"request_type": "request_type", "request_resource": "request"},
        response={
            "response_result": "response_result",
            "response_exception": "error",
            "response_status": lambda info: 3 if info["error"] else 0,
        },
    ),
    "memcached": Family(
        protocols=(82,),
        request={"request_type": lambda info: info["request"].split(" ")[0], "request_resource": "request"},
        response={"response_result": "result", "response_exception": "err_msg"},
    ),
    "mongo": Family(
        protocols=(81,),
        request={
            "request_type": "op_code_name",
            "request_resource": "request",
            "request_id": "request_id",
        },
        response={
            "response_status": status("status"),
            "response_exception": "exception",
            "response_result": "response",
        },
        alike={"request_resource": _first_key, "response_result": _first_key},
    ),
    "kafka": Family(
        protocols=(100,),
        key=lambda info: info["correlation_id"],
        request={
            "request_type": "command",
            "request_resource": text("resource"),
            "request_domain": text("topic_name"),
            "endpoint": text("endpoint"),
            "request_id": "correlation_id",
            "request_length": "req_msg_size",
            "version": text("api_version"),
            **TRACE,
        },
        response={
            "request_resource": text("resource"),
            "response_status": status("status"),
            "response_code": "status_code",
            "response_length": "resp_msg_size",
        },
    ),
    "mqtt": Family(
        protocols=(101,),
        kind=_mqtt_kind,
        request={
            "request_type": _mqtt_packet,
            "request_domain": text("client_id"),
            "request_resource": lambda info: info["publish_topic"] or info["subscribe_topics"] or "",
            "endpoint": text("endpoint"),
            "request_length": "req_msg_size",
            "version": text("version"),
        },
        response={
            "response_status": status("status"),
            "response_code": "code",
            "response_length": "res_msg_size",
        },
    ),
    "amqp": Family(
        protocols=(102,),
        key=_amqp_key,
        request={
            "request_type": _amqp_type,
            "request_domain": text("vhost"),
            "request_resource": text("endpoint"),
            "endpoint": text("endpoint"),
            "request_id": "channel_id",
            "request_length": "req_len",
            **TRACE,
        },
        response={"response_status": status("resp_status"), "response_length": "resp_len"},
    ),
    "openwire": Family(
        protocols=(103,),
        key=lambda info: info["resp_command_id"] if info["msg_type"] == "Response" else info["command_id"],
        request={
            "request_type": "command_type",
            "request_domain": text("broker_url"),
            "request_resource": text("topic"),
            "endpoint": text("topic"),
            "request_id": "command_id",
            "request_length": "req_msg_size",
            "version": text("version"),
            "x_request_id_0": text("correlation_id"),
            **TRACE,
        },
        response={
            "response_status": status("status"),
            "response_exception": text("err_msg"),
            "response_length": "res_msg_size",
        },
    ),
    "nats": Family(
        protocols=(104,),
        kind=lambda info: str((info or {}).get("msg_type") or ""),
        request={
            "request_type": _nats_type,
            "request_domain": text("server_name"),
            "request_resource": _nats_subject,
            "endpoint": text("endpoint"),
            "request_length": "req_len",
            "version": text("version"),
            **TRACE,
        },
        response={"response_length": "resp_len"},
        alike={"request_type": lambda name: name.lstrip("+-").upper()},
    ),
    "pulsar": Family(
        protocols=(105,),
        key=lambda info: info.get("request_id"),
        request={
            "request_type": lambda info: PULSAR.get(info["command"]["type"], info["command"]["type"]),
            "request_domain": text("domain"),
            "request_resource": text("topic"),
            "request_id": "request_id",
            "request_length": "req_len",
            "version": text("version"),
            "x_request_id_0": text("x_request_id"),
        },
        response={"response_length": "resp_len"},
    ),
    "zmtp": Family(
        protocols=(106,),
        request={
            "request_type": "frame_type",
            "request_domain": text("subscription"),
            "request_resource": text("subscription"),
            "request_length": "req_msg_size",
            "response_length": "res_msg_size",
        },
        response={
            "response_status": status("status"),
            "response_exception": text("err_msg"),
            "response_length": "res_msg_size",
        },
    ),
    "rocketmq": Family(
        protocols=(107,),
        key=lambda info: info["opaque"],
        request={
            "request_type": "req_code_name",
            "request_domain": text("ext_group"),
            "request_resource": text("ext_topic"),
            "endpoint": text("endpoint"),
            "request_id": "opaque",
            "request_length": "req_msg_size",
            "version": text("version"),
            "x_request_id_0": text("msg_key"),
            **TRACE,
        },
        response={
            "response_status": status("status"),
            "response_code": "resp_code",
            "response_exception": failure("remark", "status"),
            "response_length": "resp_msg_size",
        },
    ),
    "dubbo": Family(
        protocols=(40,),
        key=lambda info: info["request_id"],
        request={
            "request_type": "method_name",
            "request_resource": "service_name",
            "endpoint": text("endpoint"),
            "request_id": "request_id",
            "request_length": "req_msg_size",
            "version": "dubbo_version",
            **TRACE,
        },
        response={
            "response_status": _dubbo_status,
            "response_code": "status_code",
            "response_length": "resp_msg_size",
        },
        settings={"apm_trace_id": ["EagleEye-TraceID", "sw8"], "apm_span_id": ["EagleEye-SpanID", "sw8"]},
    ),
}
