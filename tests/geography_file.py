"""A small geography database; its records have the keys of MaxMind's City, or are flat as those of others."""

from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet


def _place(**names: str) -> dict[str, Any]:
    return {"names": {language.replace("_", "-"): name for language, name in names.items()}}


ENGLAND = _place(en="England", zh_CN="英格兰")
BRITAIN = _place(en="United Kingdom", zh_CN="英国")
SWEDEN = {"iso_code": "SE"} | _place(en="Sweden", zh_CN="瑞典")
_SPECIAL = (
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "192.168.0.0/16",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)
RECORDS: dict[str, Any] = {
    "81.2.69.0/24": {"country": BRITAIN, "subdivisions": [ENGLAND, _place(en="Oxfordshire")], "city": _place(en="X")},
    "89.160.20.112/28": {"country": SWEDEN, "continent": _place(en="Europe")},
    "2.125.160.0/24": {"country": BRITAIN, "subdivisions": [{"iso_code": "ENG"}]},
    "67.43.156.0/24": {"country": {"iso_code": "BT", "names": {}}},
    "5.5.5.0/24": {"country": "US", "country_name": "United States", "region": "California"},
    "6.6.6.0/24": {"country": "France", "continent": "Europe"},
    "7.7.7.0/24": {"continent": _place(en="Africa"), "subdivisions": [], "country": 5},
    "8.8.9.0/24": "text",
    "2a02:cf40::/32": {"country": _place(en="Norway")},
    "2400:cb00::/32": {"country": BRITAIN, "subdivisions": [ENGLAND]},
    # What no such database says: these addresses are never asked for.
    **{network: {"country": _place(en="Nowhere")} for network in _SPECIAL},
}


def write_geography(file: Path, ip_version: int = 6) -> Path:
    """Writes the database; one of version 4 has no IPv6 networks."""
    writer = MMDBWriter(ip_version, "Test-City", languages=["en", "zh-CN"], ipv4_compatible=ip_version == 6)
    for network, record in RECORDS.items():
        if ip_version == 6 or ":" not in network:
            writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(file))
    return file
