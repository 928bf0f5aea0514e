"""docs/schema.md: every table, column, tag and metric, out of the declaration."""

from collections.abc import Iterable

from deepflow.schema.model import Column, Schema, Table


def reference(schema: Schema) -> str:
    """The page as Markdown."""
    tables = sorted(schema.tables.values(), key=lambda table: table.full_name)
    parts = [
        "# Tables\n",
        "Generated from `schema/*.yaml` by `python -m deepflow.schema docs`; a test compares.\n",
        "`from`: core, the agent's batch carries the column; ingest, the server adds it; wire, sent but not stored.\n",
        *(_table(table) for table in tables),
        "## Enumerations\n",
        _grid(
            ("name", "values"),
            (
                (name, ", ".join(f"{value} {text}" for value, text in values.items()))
                for name, values in sorted(schema.enums.items())
            ),
        ),
    ]
    return "\n".join(parts)


def _table(table: Table) -> str:
    stored = [
        f"- `{table.database}.{table.stored_name(name)}`: partition {_code(kept.partition_by)}, kept {kept.ttl_hours} h"
        for name, kept in table.precisions.items()
    ]
    parts = [
        f"## {table.full_name}\n",
        table.description + "\n",
        *stored,
        f"- ordered by {', '.join(map(_code, table.order_by))}",
    ]
    if table.derived_from:
        parts.append(f"- filled by the store from `{table.derived_from}`")
    parts.append("\n### Columns\n")
    parts.append(_grid(("name", "type", "from", "kind", "unit", "meaning"), map(_column, table.columns)))
    if table.tags:
        rows = ((_code(tag.name), tag.kind, _code(tag.expr), tag.description) for tag in table.tags)
        parts += ["### Computed tags\n", _grid(("name", "kind", "expression", "meaning"), rows)]
    if table.metrics:
        metrics = (
            (
                _code(metric.name),
                metric.kind,
                metric.unit or "",
                " / ".join(_code(part) for part in (metric.numerator or metric.expr, metric.denominator) if part),
                metric.description,
            )
            for metric in table.metrics
        )
        parts += ["### Computed metrics\n", _grid(("name", "kind", "unit", "expression", "meaning"), metrics)]
    return "\n".join(parts)


def _column(column: Column) -> tuple[str, ...]:
    kind = " ".join(part for part in (column.role, column.kind, column.enum and f"({column.enum})") if part)
    return _code(column.name), _code(column.type), column.source, kind, column.unit or "", column.description


def _grid(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""
