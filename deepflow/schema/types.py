"""ClickHouse column types and the Arrow types that carry them (docs/architecture.md, section 2)."""

import re
from functools import lru_cache

import pyarrow as pa

_SCALARS: dict[str, pa.DataType] = {
    "UInt8": pa.uint8(),
    "UInt16": pa.uint16(),
    "UInt32": pa.uint32(),
    "UInt64": pa.uint64(),
    "Int8": pa.int8(),
    "Int16": pa.int16(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "String": pa.utf8(),
    "DateTime": pa.uint32(),
    "DateTime64(6)": pa.timestamp("us", tz="UTC"),
    "IPv4": pa.uint32(),
    "IPv6": pa.binary(16),
}
_WRAPPED = re.compile(r"(LowCardinality|Nullable|Array)\((.+)\)")


@lru_cache(maxsize=256)
def arrow_type(clickhouse_type: str) -> pa.DataType:
    """The Arrow type of a ClickHouse type.

    Raises:
        ValueError: the type is not one the product uses.
    """
    if scalar := _SCALARS.get(clickhouse_type):
        return scalar
    wrapped = _WRAPPED.fullmatch(clickhouse_type)
    if wrapped is None:
        raise ValueError(f"unknown column type {clickhouse_type!r}")
    inner = arrow_type(wrapped[2])
    return pa.list_(inner) if wrapped[1] == "Array" else inner


def is_nullable(clickhouse_type: str) -> bool:
    """Whether a column of this type may hold nulls."""
    return clickhouse_type.startswith(("Nullable(", "LowCardinality(Nullable("))
