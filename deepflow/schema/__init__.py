"""The tables of the product, declared once in `schema/*.yaml`.

`load()` reads and checks the declaration; DDL, Arrow schemas, the catalogue of tags and metrics and `docs/schema.md`
come from it.
"""

from deepflow.schema.model import Column, Metric, Retention, Schema, Table, Tag
from deepflow.schema.reading import SchemaError, load
from deepflow.schema.tables import ddl, quoted

__all__ = ["Column", "Metric", "Retention", "Schema", "SchemaError", "Table", "Tag", "ddl", "load", "quoted"]
