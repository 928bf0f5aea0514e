"""Batches as an agent would send them, for tests."""

import numpy as np
import pyarrow as pa

from deepflow.schema import Table


def zeros(field: pa.Field, rows: int) -> pa.Array:
    """A column of empty values."""
    if pa.types.is_list(field.type):
        return pa.array([[]] * rows, field.type)
    if pa.types.is_fixed_size_binary(field.type):
        return pa.array([bytes(16)] * rows, field.type)
    if field.nullable:
        return pa.nulls(rows, field.type)
    if pa.types.is_string(field.type):
        return pa.array([""] * rows, field.type)
    return pa.array(np.zeros(rows, np.int64)).cast(field.type)


def wire_rows(table: Table, rows: int, **columns: object) -> pa.Table:
    """`rows` rows in the wire schema; columns that are not given are empty."""
    schema = table.wire_schema()
    given = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    return pa.table(
        [given[field.name] if field.name in given else zeros(field, rows) for field in schema], schema=schema
    )


def ipc(rows: pa.Table, compression: str | None = "zstd") -> bytes:
    """The rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()
