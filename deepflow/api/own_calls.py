"""Calls to this server itself: agents, the command line and the page make them, and they are nobody's service."""

from dataclasses import dataclass

NOT_OWN = (
    "NOT (auto_service_type_1 != 120 AND server_port = {own_port:UInt16} AND "
    "if(is_ipv4 = 1, IPv4NumToString(ip4_1), IPv6NumToString(ip6_1)) IN {own_addresses:Array(String)})"
)
"""Condition on rows with two ends. An agent does not observe a server on its host: that end is an address."""

_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """Where the request that asks reached this server."""

    address: str
    port: int

    def parameters(self) -> dict[str, object]:
        """Values of the condition; the loopback addresses of this host are the server's, too."""
        return {"own_port": self.port, "own_addresses": sorted({self.address, *_LOOPBACK})}
