"""The agent's settings; DeepFlow's keys keep their names, defaults and units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from deepflow.agent.packet_filter import compile_filter
from deepflow.settings import Duration

_MOST_HEADERS = 256
"""Bytes before the payload of a packet that are kept: link layer, a tunnel, IP and TCP with their options."""


class Section(BaseModel):
    """A level of the tree; a key it does not have is an error."""

    model_config = ConfigDict(extra="forbid")


class Limits(Section):
    max_millicpus: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="CPU the agent may use, 1/1000 core. Above it, request logs are thinned out; meters stay complete.",
    )
    max_memory: int = Field(
        768,
        ge=128,
        le=100_000,
        description="Resident memory the agent may use, MiB. Above it, the agent stops with exit code 3 after it has saved what is queued.",
    )


class SelfMonitoring(Section):
    interval: Duration = Field(10.0, ge=1, le=3600, description="Interval of the agent's own counters.")
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe message that is logged."
    )


class GlobalTunning(Section):
    process_scheduling_priority: int = Field(
        0,
        ge=-20,
        le=19,
        description="Nice value of the agent. Above 0 it yields to the observed programs on a busy machine, at the price of records that no longer fit the kernel's ring, which are counted.",
    )


class Global(Section):
    limits: Limits = Limits()
    tunning: GlobalTunning = GlobalTunning()
    self_monitoring: SelfMonitoring = SelfMonitoring()


class Proc(Section):
    proc_dir_path: Path = Field(Path("/proc"), description="Where the proc file system of the host is mounted.")
    socket_info_sync_interval: Duration = Field(
        60.0, ge=0, le=3600, description="Interval at which /proc is searched for sockets; 0 only at the start."
    )
    process_blacklist: list[str] = Field(
        ["sleep", "sh", "bash", "pause", "runc", "grep", "awk", "sed"],
        description="Names of processes that are not reported.",
    )


class Whitelist(Section):
    ports: str = Field("", description="Ports that are captured, such as `80,8000-8999`; empty: all.")


class Blacklist(Section):
    ports: str = Field("", description="Ports that are not captured, such as `22,6443`.")


class Kprobe(Section):
    blacklist: Blacklist = Blacklist()
    whitelist: Whitelist = Whitelist()


class SocketTunning(Section):
    syscall_trace_id_disabled: bool = Field(
        False, description="Do not follow requests through threads; traces then end in each process."
    )
    hook: str = Field(
        "auto",
        pattern="^(auto|sock_length|sys_enter)$",
        description="Kernel hook for socket data: `auto` takes the cheapest that loads.",
    )


class TcpOptionTrace(Section):
    enabled: bool = Field(
        False,
        description="Write the sender's process, address and sequence number into a TCP option (kind 253) of new connections: both ends of a connection through NAT then name themselves. Their segments hold 16 bytes less.",
    )
    sampling_window_bytes: int = Field(
        16_384,
        ge=0,
        le=1_048_576,
        description="Bytes between two data segments that carry the option, besides SYN and SYN-ACK; 0: every one.",
    )


class SockOps(Section):
    tcp_option_trace: TcpOptionTrace = TcpOptionTrace()


class Socket(Section):
    kprobe: Kprobe = Kprobe()
    sock_ops: SockOps = SockOps()
    tunning: SocketTunning = SocketTunning()


class EbpfTunning(Section):
    kernel_ring_size: int = Field(
        65536,
        ge=8192,
        le=131_072,
        description="Size of the kernel's rings together, in records of 1 KiB; each CPU has at least 128 KiB.",
    )


class Ebpf(Section):
    disabled: bool = Field(
        False,
        description="Use no kernel programs: packets only, that is plaintext protocols, request and network metrics, and of processes what /proc shows.",
    )
    socket: Socket = Socket()
    tunning: EbpfTunning = EbpfTunning()


class AfPacketTunning(Section):
    ring_blocks_enabled: bool = Field(
        False, description="Give each ring `ring_blocks` blocks; otherwise the rings share an eighth of `max_memory`."
    )
    ring_blocks: int = Field(128, ge=8, le=1_000_000, description="Blocks of 256 KiB of each ring.")
    packet_fanout_count: int = Field(
        1, ge=1, le=64, description="Threads that read packets; the kernel divides them among the threads."
    )
    packet_fanout_mode: int = Field(
        0,
        ge=0,
        le=5,
        description="How it divides them (`PACKET_FANOUT`): 0 by flow, 2 by CPU, 5 by queue of the interface. Whatever breaks flows apart makes their metrics wrong.",
    )
    interface_promisc_enabled: bool = Field(
        False, description="Also take packets that are addressed to other machines."
    )


class AfPacket(Section):
    interface_regex: str = Field(
        r"^(tap.*|cali.*|veth.*|eth.*|en[osipx].*|lxc.*|lo|[0-9a-f]+_h)$",
        max_length=65_535,
        description="Names of the interfaces of the agent's own network namespace on which packets are read; empty: none. While sockets are observed, `lo` is left out unless this key is set: both ends of what passes it are seen already.",
    )
    inner_interface_capture_enabled: bool = Field(
        False, description="Also read packets in the other network namespaces of this host (pods, containers)."
    )
    inner_interface_regex: str = Field(
        r"^eth\d+$", max_length=65_535, description="Names of the interfaces there; empty: none."
    )
    extra_bpf_filter: str = Field(
        "",
        max_length=512,
        description="Only packets that this expression of pcap-filter(7) takes too are read, such as `tcp or udp port 53`. It sees the outermost headers and no VLAN tag; libpcap has to be installed.",
    )
    bpf_filter_disabled: bool = Field(
        False,
        description="Read everything: the agent's own traffic, the ports that are not captured, and what `extra_bpf_filter` does not take, too.",
    )
    tunning: AfPacketTunning = AfPacketTunning()

    @field_validator("extra_bpf_filter")
    @classmethod
    def _is_expression(cls, expression: str) -> str:
        if expression.strip():
            compile_filter(expression)
        return expression.strip()


class CbpfTunning(Section):
    max_capture_packet_size: int = Field(
        65_535,
        ge=128,
        le=65_535,
        description="Bytes kept of a packet; never more than headers and the payload that is looked at need.",
    )
    max_capture_pps: int = Field(
        1_048_576, ge=1, le=10_000_000, description="Packets a second that are looked at; more are counted as lost."
    )


class CbpfPreprocess(Section):
    tunnel_decap_protocols: list[Annotated[int, Field(ge=1, le=7)]] = Field(
        [1, 2, 3, 4, 5, 6, 7],
        description="Tunnels that are looked into: 1 VXLAN, 2 IPIP, 3 Tencent GRE, 4 Geneve, 5 VXLAN-NSH, 6 ERSPAN, 7 TEB. DeepFlow's default is `[1, 2]`.",
    )


class Cbpf(Section):
    af_packet: AfPacket = AfPacket()
    preprocess: CbpfPreprocess = CbpfPreprocess()
    tunning: CbpfTunning = CbpfTunning()


class Inputs(Section):
    proc: Proc = Proc()
    cbpf: Cbpf = Cbpf()
    ebpf: Ebpf = Ebpf()


class TracingTag(Section):
    x_request_id: list[str] = Field(["X_Request_ID"], description="Headers read as X-Request-ID.")
    apm_trace_id: list[str] = Field(["traceparent", "sw8"], description="Headers read as trace id.")
    apm_span_id: list[str] = Field(["traceparent", "sw8"], description="Headers read as span id.")
    http_real_client: list[str] = Field(["X_Forwarded_For"], description="Headers read as address of the real client.")


class HttpEndpoint(Section):
    keep_segments: int = Field(2, ge=1, le=16, description="Path segments kept in an HTTP endpoint.")
    fold_ids: bool = Field(
        True, description="Path segments that are ids (digits, UUIDs, long hexadecimal or mixed tokens) become `*`."
    )


class TagExtraction(Section):
    tracing_tag: TracingTag = TracingTag()
    http_endpoint: HttpEndpoint = HttpEndpoint()
    obfuscate_protocols: list[str] = Field(
        ["Redis", "MySQL", "PostgreSQL", "TDS", "Oracle", "MongoDB", "Cassandra", "Memcached"],
        description="Protocols whose values (of commands, SQL texts, documents) are masked before a row leaves the agent.",
    )


class Timeouts(Section):
    tcp_request_timeout: Duration = Field(
        300.0, ge=1, le=3600, description="How long a request on TCP waits for its response."
    )
    udp_request_timeout: Duration = Field(
        150.0, ge=1, le=300, description="How long a request on UDP waits for its response."
    )


class LogTunning(Section):
    payload_truncation: int = Field(
        1024, ge=256, le=16_384, description="Bytes of a message's segment that are captured."
    )
    session_aggregate_max_entries: int = Field(
        65_536, ge=16_384, le=10_000_000, description="Requests that wait for a response at one time."
    )


class Filters(Section):
    unconcerned_dns_nxdomain_response_suffixes: list[str] = Field(
        [], description="Domains under which a name that does not exist is no error in the DNS rows."
    )


class RequestLog(Section):
    timeouts: Timeouts = Timeouts()
    filters: Filters = Filters()
    tag_extraction: TagExtraction = TagExtraction()
    tunning: LogTunning = LogTunning()


class FlowTunning(Section):
    concurrent_flow_limit: int = Field(
        65_535,
        ge=1024,
        le=64_000_000,
        description="Flows of packets that each thread follows at one time; then the longest silent goes.",
    )


class FlowGeneration(Section):
    server_ports: list[Annotated[int, Field(ge=1, le=65_535)]] = Field(
        [],
        description="Ports whose owners are servers: who is which in flows of packets without a handshake and of no known protocol.",
    )


class FlowTimeouts(Section):
    established: Duration = Field(
        300.0, ge=1, le=86_400, description="How long a flow of packets that is open is kept without a packet."
    )
    closing_rst: Duration = Field(35.0, ge=1, le=86_400, description="The same of one that was reset.")
    opening_rst: Duration = Field(
        1.0, ge=1, le=86_400, description="The same of one that was refused by a reset in its handshake."
    )
    others: Duration = Field(
        5.0, ge=1, le=86_400, description="The same of one in its handshake or its end, and of datagrams."
    )


class Conntrack(Section):
    flow_generation: FlowGeneration = FlowGeneration()
    timeouts: FlowTimeouts = FlowTimeouts()


class FlowProcessing(Section):
    conntrack: Conntrack = Conntrack()
    tunning: FlowTunning = FlowTunning()


class Processors(Section):
    request_log: RequestLog = RequestLog()
    flow_log: FlowProcessing = FlowProcessing()


class Throttles(Section):
    l4_throttle: int = Field(
        10_000,
        ge=100,
        le=1_000_000,
        description="Flow logs a second; the rest is thinned out and counted, meters stay complete.",
    )
    l7_throttle: int = Field(
        10_000,
        ge=100,
        le=1_000_000,
        description="Request logs a second; the rest is thinned out and counted, meters stay complete.",
    )


class Aggregators(Section):
    aggregate_health_check_l4_flow_log: bool = Field(
        False,
        description="One flow log a minute for connections that carried nothing, such as health checks, between the "
        "same ends; it lists their flows. DeepFlow's default is `true`.",
    )


class FlowLog(Section):
    throttles: Throttles = Throttles()
    aggregators: Aggregators = Aggregators()


class Outputs(Section):
    flow_log: FlowLog = FlowLog()


class OutboxSettings(Section):
    memory: int = Field(64, ge=1, le=4096, description="Unsent batches kept in memory, MiB.")
    disk: int = Field(
        1024,
        ge=0,
        le=1_048_576,
        description="Unsent batches kept on disk beyond that, MiB; then the oldest is dropped and counted.",
    )


class AgentSettings(Section):
    """Configuration of `deepflow agent`."""

    server: str = Field("http://127.0.0.1:20416", pattern="^https?://", description="Address of the server.")
    token_file: Path | None = Field(None, description="File with the bearer token that the server asks for.")
    state_dir: Path = Field(
        Path("/var/lib/deepflow/agent"), description="Where the agent keeps its identity and unsent batches."
    )
    only_pids: list[int] = Field([], description="Processes that are observed; empty: all.")
    ignored_pids: list[int] = Field(
        [], description="Processes that are not observed, besides the agent itself and a server on this host."
    )
    outbox: OutboxSettings = OutboxSettings()
    global_: Global = Field(Global(), alias="global")
    inputs: Inputs = Inputs()
    processors: Processors = Processors()
    outputs: Outputs = Outputs()

    def capture_config(self) -> str:
        """`core_config` for the replay of a capture file. The file holds the values anyway; unless the settings name
        protocols to mask, only Redis is masked, as by DeepFlow."""
        tags = self.processors.request_log.tag_extraction
        masked = tags.obfuscate_protocols if "obfuscate_protocols" in tags.model_fields_set else ["Redis"]
        return json.dumps(json.loads(self.core_config([], 0)) | {"obfuscate_protocols": masked})

    def packet_config(self, own: list[tuple[str, int]]) -> dict[str, Any]:
        """`packets` of `core_config`; `own` are (address, port) of the server the agent speaks to."""
        packet, limits = self.inputs.cbpf.af_packet, self.inputs.cbpf.tunning
        rings = packet.tunning
        ports = self.inputs.ebpf.socket.kprobe
        chosen = "interface_regex" in packet.model_fields_set
        # Packets have no process: where only some processes are observed, they are read only when asked for.
        interfaces = packet.interface_regex if chosen or not self.only_pids else ""
        return {
            "interface_regex": interfaces,
            "loopback": True if chosen else None,
            "inner_interface_capture_enabled": packet.inner_interface_capture_enabled,
            "inner_interface_regex": packet.inner_interface_regex,
            "bpf_filter_disabled": packet.bpf_filter_disabled,
            "extra_filter": compile_filter(packet.extra_bpf_filter) if packet.extra_bpf_filter else None,
            "ports_blacklist": parse_ports(ports.blacklist.ports),
            "ports_whitelist": parse_ports(ports.whitelist.ports),
            "own": [{"ip": ip, "port": port} for ip, port in own],
            "ring_blocks": rings.ring_blocks if rings.ring_blocks_enabled else 0,
            "ring_bytes": self.global_.limits.max_memory * (1 << 20) // 8,
            "fanout_count": rings.packet_fanout_count,
            "fanout_mode": rings.packet_fanout_mode,
            "promiscuous": rings.interface_promisc_enabled,
            "max_packet_bytes": min(
                limits.max_capture_packet_size,
                self.processors.request_log.tunning.payload_truncation + _MOST_HEADERS,
            ),
            "max_pps": limits.max_capture_pps,
            "proc_dir": str(self.inputs.proc.proc_dir_path),
        }

    def core_config(self, ignored_pids: list[int], agent_id: int, own: list[tuple[str, int]] | None = None) -> str:
        """The JSON that `_core.Agent` takes (docs/architecture.md, section 2); `own` as in `packet_config`."""
        log = self.processors.request_log
        tags = log.tag_extraction
        socket = self.inputs.ebpf.socket
        flows = self.processors.flow_log
        return json.dumps(
            {
                "agent_id": agent_id,
                "payload_truncation": log.tunning.payload_truncation,
                "ring_bytes": self.inputs.ebpf.tunning.kernel_ring_size * 1024,
                "ignored_pids": [*self.ignored_pids, *ignored_pids],
                "only_pids": self.only_pids,
                "ports_blacklist": parse_ports(socket.kprobe.blacklist.ports),
                "ports_whitelist": parse_ports(socket.kprobe.whitelist.ports),
                "tcp_request_timeout_s": int(log.timeouts.tcp_request_timeout),
                "udp_request_timeout_s": int(log.timeouts.udp_request_timeout),
                "session_aggregate_max_entries": log.tunning.session_aggregate_max_entries,
                "l7_throttle": self.outputs.flow_log.throttles.l7_throttle,
                "l4_throttle": self.outputs.flow_log.throttles.l4_throttle,
                "aggregate_health_check": self.outputs.flow_log.aggregators.aggregate_health_check_l4_flow_log,
                "concurrent_flow_limit": flows.tunning.concurrent_flow_limit,
                "flow_timeouts": {f"{name}_us": int(seconds * 1_000_000) for name, seconds in flows.conntrack.timeouts},
                "server_ports": flows.conntrack.flow_generation.server_ports,
                "tunnel_decap_protocols": self.inputs.cbpf.preprocess.tunnel_decap_protocols,
                "syscall_trace_id_disabled": socket.tunning.syscall_trace_id_disabled,
                "ebpf_disabled": self.inputs.ebpf.disabled,
                "hook": socket.tunning.hook,
                "packets": self.packet_config(own or []),
                "tcp_option_trace": socket.sock_ops.tcp_option_trace.enabled,
                "tcp_option_sampling_window": socket.sock_ops.tcp_option_trace.sampling_window_bytes,
                "x_request_id": [_header(name) for name in tags.tracing_tag.x_request_id],
                "apm_trace_id": [_header(name) for name in tags.tracing_tag.apm_trace_id],
                "apm_span_id": [_header(name) for name in tags.tracing_tag.apm_span_id],
                "http_real_client": [_header(name) for name in tags.tracing_tag.http_real_client],
                "http_endpoint_segments": tags.http_endpoint.keep_segments,
                "unconcerned_dns_nxdomain_response_suffixes": log.filters.unconcerned_dns_nxdomain_response_suffixes,
                "http_endpoint_fold_ids": tags.http_endpoint.fold_ids,
                "obfuscate_protocols": tags.obfuscate_protocols,
            }
        )


def parse_ports(text: str) -> list[int]:
    """`"22,8000-8002"` → [22, 8000, 8001, 8002].

    Raises:
        ValueError: a sentence naming the part that is no port.
    """
    ports: list[int] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()) or not 0 < int(first) <= int(last or first) < 65_536:
            raise ValueError(f"{part!r} is no port and no range of ports; write for example 22,8000-8002")
        ports.extend(range(int(first), int(last or first) + 1))
    return ports


def _header(name: str) -> str:
    return name.lower().replace("_", "-")
