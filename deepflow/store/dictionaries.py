"""The `flow_tag` database: names of resources and enumerations, as dictionaries under DeepFlow's own names.

`flow_tag.X_map` is a dictionary, which both `dictGet` and SELECT can read; its rows live in the
table `flow_tag.X_rows`.
Dictionaries do not reload by themselves everywhere (chDB ignores LIFETIME), so a writer reloads what it changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from deepflow.schema import Schema, quoted
from deepflow.schema.types import arrow_type
from deepflow.store.store import Store

DATABASE = "flow_tag"


@dataclass(frozen=True, eq=False)
class Dictionary:
    """One dictionary: its keys and attributes with their ClickHouse types."""

    name: str
    keys: Mapping[str, str]
    attributes: Mapping[str, str]

    @property
    def full_name(self) -> str:
        """`flow_tag.X_map`."""
        return f"{DATABASE}.{self.name}"

    @property
    def rows_table(self) -> str:
        """`flow_tag.X_rows`: where the dictionary reads its rows."""
        return f"{DATABASE}.{self.name.removesuffix('_map')}_rows"

    def arrow_schema(self) -> pa.Schema:
        """Columns of an insert into the rows table."""
        columns = {**self.keys, **self.attributes, "version": "UInt64"}
        return pa.schema([pa.field(name, arrow_type(kind), nullable=False) for name, kind in columns.items()])

    def ddl(self, credentials: tuple[str, str] = ("", "")) -> list[str]:
        """Statements that create the rows table and the dictionary.

        Args:
            credentials: user and password with which a server reads its own table, where it asks for one.
        """
        columns = {**self.keys, **self.attributes}
        listed = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())
        selected = ", ".join(quoted(name) for name in columns)
        keys = ", ".join(quoted(name) for name in self.keys)
        layout = "HASHED()" if list(self.keys.values()) == ["UInt64"] else "COMPLEX_KEY_HASHED()"
        user, password = (value.replace("\\", "\\\\").replace("'", "\\'") for value in credentials)
        login = f" USER '{user}' PASSWORD '{password}'" if user else ""
        rows = quoted(*self.rows_table.split("."))
        return [
            f"CREATE TABLE IF NOT EXISTS {rows} ({listed}, version UInt64) ENGINE = ReplacingMergeTree(version) "
            f"ORDER BY ({keys}) SETTINGS fsync_after_insert = 1, fsync_part_directory = 1",
            f"CREATE OR REPLACE DICTIONARY {quoted(DATABASE, self.name)} ({_attributes(columns)}) PRIMARY KEY {keys} "
            f"SOURCE(CLICKHOUSE(QUERY 'SELECT {selected} FROM {rows} FINAL'{login})) LAYOUT({layout}) LIFETIME(0)",
        ]


def _attributes(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{quoted(name)} {kind} DEFAULT {_default(kind)}" for name, kind in columns.items())


def _default(kind: str) -> str:
    return "''" if kind == "String" else "0"


_NAME = {"name": "String", "icon_id": "Int64"}
GPROCESS = Dictionary(
    "gprocess_map", {"id": "UInt64"}, {**_NAME, "host_id": "UInt64", "agent_id": "UInt64", "pid": "UInt64"}
)
DEVICE = Dictionary(
    "device_map", {"devicetype": "UInt64", "deviceid": "UInt64"}, {**_NAME, "hostname": "String", "ip": "String"}
)
HOST = Dictionary("host_map", {"id": "UInt64"}, {**_NAME, "hostname": "String", "ip": "String"})
CHOST = Dictionary("chost_map", {"id": "UInt64"}, {**_NAME, "host_id": "UInt64", "hostname": "String", "ip": "String"})
VTAP = Dictionary("vtap_map", {"id": "UInt64"}, {"name": "String", "host_id": "UInt64", "host_name": "String"})
VTAP_PORT = Dictionary(
    "vtap_port_map",
    {"vtap_id": "UInt64", "tap_port": "UInt64"},
    {**_NAME, "device_name": "String", "kind": "String", "netns": "UInt64", "behind": "UInt64"},
)
INT_ENUM = Dictionary("int_enum_map", {"tag_name": "String", "value": "UInt64"}, {"name_en": "String"})
STRING_ENUM = Dictionary("string_enum_map", {"tag_name": "String", "value": "String"}, {"name_en": "String"})
DICTIONARIES = (GPROCESS, DEVICE, HOST, CHOST, VTAP, VTAP_PORT, INT_ENUM, STRING_ENUM)


def fill_enumerations(store: Store, schema: Schema) -> None:
    """Writes the enumerations of `enums.yaml`; a value that left the file leaves the dictionary."""
    for dictionary, kind in ((INT_ENUM, int), (STRING_ENUM, str)):
        rows = [
            {"tag_name": name, "value": value, "name_en": text, "version": 0}
            for name, values in schema.enums.items()
            for value, text in values.items()
            if isinstance(value, kind)
        ]
        wanted = pa.Table.from_pylist(rows, schema=dictionary.arrow_schema())
        table = quoted(*dictionary.rows_table.split("."))
        present = store.query(f"SELECT tag_name, toString(value) AS value, name_en FROM {table}").to_pylist()
        if {(row["tag_name"], row["value"], row["name_en"]) for row in present} != {
            (row["tag_name"], str(row["value"]), row["name_en"]) for row in rows
        }:
            store.command(f"TRUNCATE TABLE {table}")
            store.insert(dictionary.rows_table, wanted)
        reload(store, dictionary)


def reload(store: Store, dictionary: Dictionary) -> None:
    """Makes the dictionary read its rows again."""
    store.command(f"SYSTEM RELOAD DICTIONARY {quoted(DATABASE, dictionary.name)}")
