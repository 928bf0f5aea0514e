"""What can be asked of a table: its tags and metrics under DeepFlow's names, old names included."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from deepflow.query.errors import QueryError, unknown
from deepflow.schema import Schema, Table

OLD_NAMES = {
    "vtap": "agent",
    "vtap_id": "agent_id",
    "tap_side": "observation_point",
    "tap_port": "capture_nic",
    "tap_port_name": "capture_nic_name",
    "tap_port_type": "capture_nic_type",
    "tap": "capture_network_type",
    "tap_id": "capture_network_type_id",
}
"""Tags that DeepFlow renamed; the old name is still understood."""
OLD_TABLES = {
    "vtap_app_port": "application",
    "vtap_app_edge_port": "application_map",
    "vtap_flow_port": "network",
    "vtap_flow_edge_port": "network_map",
}
SYSTEM = "deepflow_system"
# The names DeepFlow itself used for its own counters in former versions.
_SYSTEM_DATABASES = {SYSTEM, "deepflow_tenant", "deepflow_admin"}


@dataclass(frozen=True)
class TagEntry:
    """A tag: a stored column, or a rule over stored columns."""

    name: str
    base: str
    side: int | None
    kind: str
    category: str
    description: str
    type: str | None = None
    """ClickHouse type of the stored column, None when there is none of this name."""
    enum: str | None = None
    expr: str | None = None
    unit: str = ""
    listed: bool = True
    """Whether SHOW TAGS prints it: ids stand behind the names of resources and are not printed."""


@dataclass(frozen=True)
class MetricEntry:
    """A metric: a stored column, an expression a row, or a quotient."""

    name: str
    kind: str
    category: str
    unit: str
    description: str
    expr: str | None = None
    numerator: str | None = None
    denominator: str | None = None


@dataclass(frozen=True)
class Catalogue:
    """Tags and metrics of one table."""

    table: Table
    schema: Schema

    @cached_property
    def tags(self) -> Mapping[str, TagEntry]:
        """By name; in the order of the declaration."""
        found: dict[str, TagEntry] = {}
        for column in self.table.stored_columns():
            is_id = column.role == "internal" and column.base.endswith("_id")
            if column.role == "tag" or is_id:
                found[column.name] = TagEntry(
                    column.name,
                    column.base,
                    column.side,
                    column.kind or "int",
                    column.category or "",
                    column.description,
                    type=column.type,
                    enum=column.enum,
                    unit=column.unit or "",
                    listed=not is_id,
                )
        for tag in self.table.tags:
            found[tag.name] = TagEntry(
                tag.name, tag.base, tag.side, tag.kind, tag.category, tag.description, expr=tag.expr
            )
        return found

    @cached_property
    def metrics(self) -> Mapping[str, MetricEntry]:
        """By name; stored ones first."""
        found = {
            column.name: MetricEntry(
                column.name, column.kind or "counter", column.category or "", column.unit or "", column.description
            )
            for column in self.table.stored_columns()
            if column.role == "metric"
        }
        for metric in self.table.metrics:
            found[metric.name] = MetricEntry(
                metric.name,
                metric.kind,
                metric.category,
                metric.unit or "",
                metric.description,
                metric.expr,
                metric.numerator,
                metric.denominator,
            )
        return found

    def tag(self, name: str) -> TagEntry | None:
        """The tag of this name or old name; `attribute.X` is answered by the map `attribute`."""
        if entry := self.tags.get(name) or self.tags.get(_renamed(name)):
            return entry
        entry = self.tags.get(name.split(".", 1)[0]) if "." in name else None
        return entry if entry is not None and entry.kind == "map" else None

    def sides(self, name: str) -> tuple[TagEntry, ...]:
        """The two tags `NAME_0` and `NAME_1` behind a name without side; empty when there are none."""
        name = _renamed(name)
        pairs = (f"{name}_0", f"{name}_1"), (f"{name}_request", f"{name}_response"), (f"req_{name}", f"resp_{name}")
        for pair in pairs:
            if all(one in self.tags for one in pair):
                return tuple(self.tags[one] for one in pair)
        return ()

    def metric(self, name: str) -> MetricEntry | None:
        """The metric of this name; `metrics.NAME` where the table has such a list."""
        if entry := self.metrics.get(name):
            return entry if name != "metrics" else None
        family, _, member = name.partition(".")
        if family == "metrics" and member and "metrics" in self.metrics:
            parent = self.metrics["metrics"]
            return MetricEntry(name, parent.kind, parent.category, parent.unit, parent.description)
        return None

    def missing(self, name: str) -> QueryError:
        """The sentence for a name that is neither tag nor metric."""
        if pair := self.sides(name):
            return QueryError(
                f'Tag "{name}" has two sides in {self.table.full_name}; use {pair[0].name} or {pair[1].name}.'
            )
        return unknown("tag or metric", name, [*self.tags, *self.metrics], f" in {self.table.full_name}")


def _renamed(name: str) -> str:
    for old, new in OLD_NAMES.items():
        if name == old or (name.startswith(old) and name[len(old) :] in {"_0", "_1"}):
            return new + name[len(old) :]
    return name


def databases(schema: Schema) -> list[str]:
    """Databases that hold something to ask for."""
    return sorted({table.database for table in visible(schema)})


def visible(schema: Schema) -> list[Table]:
    """Tables that a query may name."""
    return [table for table in schema.tables.values() if table.kind != "internal"]


def database_of(schema: Schema, db: str) -> str:
    """The database under its present name, "" for none given.

    Raises:
        QueryError: there is no such database.
    """
    name = SYSTEM if db in _SYSTEM_DATABASES else db
    if name and name not in databases(schema):
        raise unknown("database", db, databases(schema))
    return name
