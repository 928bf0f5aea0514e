"""Brings a store to the shape that the schema declares; run at every start, changes nothing when nothing changed."""

from deepflow.schema import Schema, Table, ddl, quoted
from deepflow.schema.tables import column_ddl, index_ddl
from deepflow.store.dictionaries import DATABASE, DICTIONARIES, fill_enumerations
from deepflow.store.store import Store, StoreError
from deepflow.store.trace_keys import keys_of_row

TRACE_KEY = "flow_log.trace_key"
TRACE_KEY_SOURCE = "flow_log.l7_flow_log"


def prepare(store: Store, schema: Schema) -> None:
    """Creates what is missing: databases, tables, columns, dictionaries, enumerations, the view of trace_key.

    Raises:
        StoreError: the store refused, or holds a column of another type than the schema declares.
    """
    for database in sorted({table.database for table in schema.tables.values()} | {DATABASE}):
        store.command(f"CREATE DATABASE IF NOT EXISTS {quoted(database)}")
    for table in schema.tables.values():
        for precision in table.precisions:
            store.command(ddl(table, precision))
            _add_columns(store, table, precision)
    _create_trace_key_view(store, schema)
    credentials = getattr(store, "credentials", ("", ""))
    for dictionary in DICTIONARIES:
        for statement in dictionary.ddl(credentials):
            store.command(statement)
    fill_enumerations(store, schema)


def stored_columns(store: Store, database: str, table: str) -> dict[str, str]:
    """Columns of a stored table: name → ClickHouse type."""
    rows = store.query(
        "SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String} "
        "ORDER BY position",
        {"database": database, "table": table},
    )
    return dict(zip(rows.column("name").to_pylist(), rows.column("type").to_pylist(), strict=True))


def trace_key_select(schema: Schema, source: str = TRACE_KEY_SOURCE, where: str = "1") -> str:
    """SELECT that derives the rows of trace_key from those of l7_flow_log, columns in the order of the table."""
    derived = {
        "key": "arrayJoin(all_keys) AS `key`",
        "other_keys": "arrayFilter(k -> k != `key`, all_keys) AS `other_keys`",
    }
    columns = [derived.get(column.name, quoted(column.name)) for column in schema.tables[TRACE_KEY].stored_columns()]
    return (
        f"WITH {keys_of_row()} AS all_keys SELECT {', '.join(columns)} "
        f"FROM {quoted(*source.split('.', 1))} WHERE {where}"
    )


def _add_columns(store: Store, table: Table, precision: str) -> None:
    name = table.stored_name(precision)
    present = stored_columns(store, table.database, name)
    changes: list[str] = []
    previous = ""
    for column in table.stored_columns():
        if column.name not in present:
            changes.append(
                f"ADD COLUMN IF NOT EXISTS {column_ddl(column)} {f'AFTER {quoted(previous)}' if previous else 'FIRST'}"
            )
            if index := index_ddl(column):
                changes.append(f"ADD {index.replace('INDEX', 'INDEX IF NOT EXISTS', 1)}")
        elif present[column.name] != column.type:
            raise StoreError(
                f"Column {column.name} of {table.database}.{name} is {present[column.name]} in the store "
                f"but {column.type} in the schema; use a new data folder or change the column by hand."
            )
        previous = column.name
    if changes:
        store.command(f"ALTER TABLE {quoted(table.database, name)} {', '.join(changes)}")


def _create_trace_key_view(store: Store, schema: Schema) -> None:
    """The view is made anew at each start, so that it always has the columns and keys of this version."""
    view = quoted("flow_log", "trace_key_view")
    store.command(f"DROP TABLE IF EXISTS {view}")
    store.command(
        f"CREATE MATERIALIZED VIEW {view} TO {quoted(*TRACE_KEY.split('.', 1))} AS {trace_key_select(schema)}"
    )
