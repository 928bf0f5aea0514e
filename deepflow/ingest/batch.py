"""What an agent sends: an Arrow IPC stream, checked against the table before anything is stored."""

import pyarrow as pa

from deepflow.schema import Table

MAX_BODY_BYTES = 32 << 20
MAX_BATCH_ROWS = 200_000
"""Bound of a batch, well below the rows of one block, so that each partition gets all of its rows or none."""
_MAX_DECODED_BYTES = 1 << 30


class BatchError(Exception):
    """The batch is wrong and must not be repeated; the message is one sentence."""


def decode(table: Table, name: str, data: bytes) -> pa.Table:
    """The rows of a batch, columns in the order and with the types of `table.wire_schema()`.

    Dictionary-encoded strings are accepted for strings. Column order is free.

    Args:
        table: what the batch is for; `name` is what the sender calls it.
        data: Arrow IPC stream.

    Raises:
        BatchError: corrupt, too large, unknown or missing column, wrong type, null where none may be.
    """
    if len(data) > MAX_BODY_BYTES:
        raise BatchError(f"The batch has {len(data)} bytes, at most {MAX_BODY_BYTES} are taken.")
    rows = _read(name, data)
    wanted = table.wire_schema()
    for field in rows.schema:
        if wanted.get_field_index(field.name) < 0:
            raise BatchError(f"Table {name} has no column {field.name!r}.")
    if len(set(rows.column_names)) != len(rows.column_names):
        raise BatchError(f"The batch for {name} has a column twice.")
    return pa.table([_column(rows, field, name) for field in wanted], schema=wanted)


def _read(name: str, data: bytes) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    rows = size = 0
    try:
        with pa.ipc.open_stream(data) as reader:
            schema = reader.schema
            for batch in reader:
                batch.validate(full=True)
                rows += batch.num_rows
                size += batch.nbytes
                if rows > MAX_BATCH_ROWS:
                    raise BatchError(f"The batch for {name} has more than {MAX_BATCH_ROWS} rows.")
                if size > _MAX_DECODED_BYTES:
                    raise BatchError(
                        f"The batch for {name} has more than {_MAX_DECODED_BYTES} bytes when decompressed."
                    )
                batches.append(batch)
        return pa.Table.from_batches(batches, schema).combine_chunks()
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise BatchError(f"The batch for {name} is not a valid Arrow IPC stream: {reason}.") from None


def _column(rows: pa.Table, field: pa.Field, name: str) -> pa.ChunkedArray:
    if field.name not in rows.column_names:
        raise BatchError(f"The batch for {name} lacks the column {field.name!r}.")
    column = rows.column(field.name)
    if column.type != field.type:
        if _plain(column.type) != _plain(field.type):
            raise BatchError(f"Column {field.name!r} of {name} is {column.type}, it must be {field.type}.")
        column = column.cast(field.type)
    if column.null_count and not field.nullable:
        raise BatchError(f"Column {field.name!r} of {name} must not hold nulls.")
    return column


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without dictionary encoding and without the names and null flags of list items."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind
