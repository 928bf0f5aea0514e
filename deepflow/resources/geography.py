"""Province or country of public addresses, out of a file in the MaxMind DB format (https://maxmind.github.io/MaxMind-DB/)."""

import ipaddress
import logging
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb
import pyarrow as pa
import pyarrow.compute as pc

log = logging.getLogger(__name__)
_REMEMBERED = 1 << 16
_UNICAST_6 = ipaddress.ip_network("2000::/3")
# Keys of databases whose records are flat (IPinfo, ip-location-db), the finer place first.
_FLAT_KEYS = ("region", "state1", "country_name", "country", "country_code")


class GeographyError(Exception):
    """The file cannot be used; the message is one sentence that names it."""


class Geography:
    """One database, as it was when it was opened; safe to use from any thread."""

    def __init__(self, file: Path, language: str = "en") -> None:
        """
        Args:
            file: what stands in it may change afterwards, this object does not see it.
            language: of the names, as the database writes it (`zh-CN`); English where a name lacks it.

        Raises:
            GeographyError: the file cannot be read, or is not in this format.
        """
        try:
            self._database = _open(file.read_bytes())
        except OSError as error:
            raise GeographyError(f"The geography file {file} cannot be read: {error.strerror}.") from None
        except (maxminddb.InvalidDatabaseError, ValueError):
            raise GeographyError(f"The geography file {file} is not in the MaxMind DB format.") from None
        self._file = file
        self._ip_version = self._database.metadata().ip_version
        self._languages = (language, "en")
        self._damage_told = False
        self._province = lru_cache(_REMEMBERED)(self._look_up)

    def provinces(self, is_ipv4: pa.ChunkedArray, ip4: pa.ChunkedArray, ip6: pa.ChunkedArray) -> pa.Array:
        """The first subdivision of the country or else the country, a text a row; empty where it is not known.

        Args:
            is_ipv4: 0 where `ip6` counts.
            ip4: numbers in host order.
            ip6: 16 bytes each.
        """
        return pc.if_else(pc.equal(_whole(is_ipv4), 0), self._of_column(ip6), self._of_column(ip4))

    def _of_column(self, addresses: pa.ChunkedArray) -> pa.Array:
        """Looks each address up once, however many rows have it."""
        encoded = _whole(addresses).dictionary_encode()
        found = [self._province(address) for address in encoded.dictionary.to_pylist()]
        return pa.array(found, pa.utf8()).take(encoded.indices)

    def _look_up(self, number_or_bytes: int | bytes) -> str:
        address = ipaddress.ip_address(number_or_bytes)
        if not _is_public(address) or address.version > self._ip_version:
            return ""
        try:
            return next(filter(None, self._names(self._database.get(address))), "")
        except (maxminddb.InvalidDatabaseError, ValueError) as error:
            if not self._damage_told:
                self._damage_told = True
                log.warning("The geography file %s is damaged, some addresses have no province: %s", self._file, error)
            return ""

    def _names(self, record: Any) -> Iterator[str]:
        """What a record says of the place, the best first; empty texts among it."""
        if not isinstance(record, dict):
            return
        subdivisions = record.get("subdivisions")
        if isinstance(subdivisions, list) and subdivisions:
            yield self._name(subdivisions[0])
        for key in _FLAT_KEYS:
            yield self._name(record.get(key))
        country = record.get("country")
        if isinstance(country, dict):
            yield str(country.get("iso_code", ""))

    def _name(self, place: Any) -> str:
        if isinstance(place, str):
            return place
        names = place.get("names") if isinstance(place, dict) else None
        if not isinstance(names, dict):
            return ""
        return next((str(names[language]) for language in self._languages if names.get(language)), "")


def _open(content: bytes) -> maxminddb.Reader:
    """A reader of a copy in memory.

    The library's fast reader maps a file and would die with whoever cuts that file short; nobody can reach this one.
    """
    descriptor = os.memfd_create("geography", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as copy:
        copy.write(content)
        copy.flush()
        return maxminddb.open_database(f"/proc/self/fd/{descriptor}")


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Global unicast, by IANA's registries of special-purpose addresses (RFC 6890)."""
    if address.version == 6 and address not in _UNICAST_6:
        return False
    return address.is_global and not address.is_multicast


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
