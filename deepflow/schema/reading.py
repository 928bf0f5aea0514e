"""Reads `schema/*.yaml` strictly: whatever is not understood is an error with one sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deepflow.schema.model import Column, Metric, Retention, Schema, Table, Tag
from deepflow.schema.types import arrow_type

_SIDES = (0, 1)
_SOURCES = {"core", "ingest", "wire"}
_ROLES = {"tag", "metric", "internal"}
_INDEXES = {"minmax", "set", "bloom"}
_TABLE_KINDS = {"log", "metrics", "internal"}
_PACKAGED = Path(__file__).parent / "tables"
_SOURCE_TREE = Path(__file__).parents[2] / "schema"


class SchemaError(Exception):
    """The declaration of the tables is wrong; the message is one sentence that names the file and the key."""


@dataclass(frozen=True)
class _Keys:
    required: frozenset[str]
    optional: frozenset[str]

    def check(self, value: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise SchemaError(f"{where} must be a mapping, not {type(value).__name__}.")
        if unknown := sorted(set(map(str, value)) - self.required - self.optional):
            raise SchemaError(f"{where} has the unknown key {unknown[0]!r}.")
        if missing := sorted(self.required - set(value)):
            raise SchemaError(f"{where} lacks the key {missing[0]!r}.")
        return value


_TABLE = _Keys(
    frozenset({"database", "table", "description", "kind", "engine", "order_by", "columns"}),
    frozenset({"partition_by", "ttl_hours", "precisions", "derived_from", "tags", "metrics"}),
)
_COLUMN = _Keys(
    frozenset({"name", "type", "from", "role", "description"}),
    frozenset({"sides", "kind", "enum", "category", "unit", "index", "codec"}),
)
_TAG = _Keys(frozenset({"name", "kind", "category", "description"}), frozenset({"sides", "expr"}))
_METRIC = _Keys(
    frozenset({"name", "kind", "category", "description"}), frozenset({"unit", "expr", "numerator", "denominator"})
)
_RETENTION = _Keys(frozenset({"partition_by", "ttl_hours"}), frozenset())


def schema_directory() -> Path:
    """The folder of the YAML files: inside the installed package, else `schema/` of the source tree.

    Raises:
        SchemaError: neither is there.
    """
    for folder in (_PACKAGED, _SOURCE_TREE):
        if (folder / "enums.yaml").is_file():
            return folder
    raise SchemaError(f"The table declarations are missing: neither {_PACKAGED} nor {_SOURCE_TREE} has an enums.yaml.")


def load(folder: Path | None = None) -> Schema:
    """All tables and enumerations of `folder` (default: those that belong to this package).

    Raises:
        SchemaError: a file is missing, is no YAML, or says something that is not understood.
    """
    return _default() if folder is None else _read_folder(folder)


@cache
def _default() -> Schema:
    return _read_folder(schema_directory())


def _read_folder(folder: Path) -> Schema:
    documents = {path.name: _parse(path) for path in sorted(folder.glob("*.yaml"))}
    if "enums.yaml" not in documents:
        raise SchemaError(f"{folder} has no enums.yaml.")
    enums = _enums(documents.pop("enums.yaml"))
    tables: dict[str, Table] = {}
    for file, document in documents.items():
        table = _table(document, file, enums)
        if table.full_name in tables:
            raise SchemaError(f"{file} declares {table.full_name} a second time.")
        tables[table.full_name] = table
    return Schema(tables, enums)


def _parse(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SchemaError(f"{path.name} cannot be read: {' '.join(str(error).split())}.") from None


def _enums(document: Any) -> dict[str, dict[int | str, str]]:
    if not isinstance(document, dict):
        raise SchemaError("enums.yaml must be a mapping of enumerations.")
    for name, values in document.items():
        if not isinstance(values, dict) or not all(isinstance(text, str) for text in values.values()):
            raise SchemaError(
                f"enums.yaml: {name} must map values to names (put names that YAML reads as true or false in quotes)."
            )
        if len({type(value) for value in values}) > 1:
            raise SchemaError(f"enums.yaml: {name} mixes numbers and strings.")
    return document


def _table(document: Any, file: str, enums: Mapping[str, object]) -> Table:
    entry = _TABLE.check(document, file)
    if entry["kind"] not in _TABLE_KINDS:
        raise SchemaError(f"{file}: kind is {entry['kind']!r}, it must be one of {', '.join(sorted(_TABLE_KINDS))}.")
    columns = tuple(column for item in entry["columns"] for column in _columns(item, file, enums))
    _unique([column.name for column in columns], f"{file}: column")
    names = {column.name for column in columns if column.stored}
    if unknown := [name for name in entry["order_by"] if name not in names]:
        raise SchemaError(f"{file}: order_by names the unknown column {unknown[0]!r}.")
    tags = tuple(tag for item in entry.get("tags", []) for tag in _tags(item, file))
    metrics = tuple(_metric(item, file) for item in entry.get("metrics", []))
    _unique([tag.name for tag in tags], f"{file}: tag")
    _unique([metric.name for metric in metrics], f"{file}: metric")
    _check_quotients(metrics, names, file)
    return Table(
        database=entry["database"],
        name=entry["table"],
        description=entry["description"],
        kind=entry["kind"],
        engine=entry["engine"],
        order_by=tuple(entry["order_by"]),
        columns=columns,
        tags=tags,
        metrics=metrics,
        precisions=_precisions(entry, file),
        derived_from=entry.get("derived_from"),
    )


def _precisions(entry: Mapping[str, Any], file: str) -> dict[str, Retention]:
    if ("precisions" in entry) == ("partition_by" in entry):
        raise SchemaError(f"{file} must have either precisions or partition_by with ttl_hours.")
    if "precisions" not in entry:
        return {"": _retention({key: entry.get(key) for key in ("partition_by", "ttl_hours")}, file)}
    if not isinstance(entry["precisions"], dict) or not entry["precisions"]:
        raise SchemaError(f"{file}: precisions must map a precision to its partition_by and ttl_hours.")
    return {str(name): _retention(item, f"{file}: precision {name}") for name, item in entry["precisions"].items()}


def _retention(item: Any, where: str) -> Retention:
    entry = _RETENTION.check(item, where)
    if not isinstance(entry["partition_by"], str):
        raise SchemaError(f"{where}: partition_by must be an SQL expression.")
    if not isinstance(entry["ttl_hours"], int) or entry["ttl_hours"] <= 0:
        raise SchemaError(f"{where}: ttl_hours must be a positive number of hours.")
    return Retention(entry["partition_by"], entry["ttl_hours"])


def _columns(item: Any, file: str, enums: Mapping[str, object]) -> list[Column]:
    name = item.get("name") if isinstance(item, dict) else item
    where = f"{file}: column {name!r}"
    entry = _COLUMN.check(item, where)
    try:
        arrow_type(entry["type"])
    except ValueError as error:
        raise SchemaError(f"{where}: {error}.") from None
    for key, allowed in (("from", _SOURCES), ("role", _ROLES), ("index", _INDEXES)):
        if key in entry and entry[key] not in allowed:
            raise SchemaError(f"{where}: {key} is {entry[key]!r}, it must be one of {', '.join(sorted(allowed))}.")
    if entry["role"] != "internal" and not (entry.get("kind") and entry.get("category")):
        raise SchemaError(f"{where}: a {entry['role']} needs kind and category.")
    if "enum" in entry and entry["enum"] not in enums:
        raise SchemaError(f"{where}: enums.yaml has no {entry['enum']!r}.")
    return [
        Column(
            name=_sided(entry["name"], side),
            base=entry["name"],
            side=side,
            type=entry["type"],
            source=entry["from"],
            role=entry["role"],
            description=entry["description"],
            **{key: entry.get(key) for key in ("kind", "enum", "category", "unit", "index", "codec")},
        )
        for side in _sides(entry, where)
    ]


def _tags(item: Any, file: str) -> list[Tag]:
    where = f"{file}: tag {item.get('name') if isinstance(item, dict) else item!r}"
    entry = _TAG.check(item, where)
    name = str(entry["name"])
    found: list[Tag] = []
    for side in _sides(entry, where):
        expr = entry.get("expr")
        if expr is not None and side is not None:
            expr = expr.replace("{s}", f"_{side}")
        found.append(Tag(_sided(name, side), name, side, entry["kind"], entry["category"], entry["description"], expr))
    return found


def _metric(item: Any, file: str) -> Metric:
    name = item.get("name") if isinstance(item, dict) else item
    return Metric(**_METRIC.check(item, f"{file}: metric {name!r}"))


def _check_quotients(metrics: tuple[Metric, ...], columns: set[str], file: str) -> None:
    known = columns | {metric.name for metric in metrics}
    for metric in metrics:
        for part in (metric.numerator, metric.denominator):
            if part is not None and part not in known:
                raise SchemaError(f"{file}: metric {metric.name!r} divides by or of the unknown {part!r}.")
        if metric.numerator is not None and metric.denominator is None:
            raise SchemaError(f"{file}: metric {metric.name!r} has a numerator but no denominator.")


def _sides(entry: Mapping[str, Any], where: str) -> tuple[int | None, ...]:
    sides = entry.get("sides", False)
    if not isinstance(sides, bool):
        raise SchemaError(f"{where}: sides must be true or false.")
    return _SIDES if sides else (None,)


def _sided(name: str, side: int | None) -> str:
    return name if side is None else f"{name}_{side}"


def _unique(names: list[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SchemaError(f"{what} {name!r} is declared twice.")
        seen.add(name)
