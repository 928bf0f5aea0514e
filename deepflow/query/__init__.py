"""DeepFlow's SQL dialect over the store: `execute` answers a query, `translate` shows the ClickHouse SQL it becomes."""

import pyarrow as pa

from deepflow.query.dialect import parse, tokens_of
from deepflow.query.errors import QueryError
from deepflow.query.result import MAX_ROWS, Result, answer
from deepflow.query.select import compile_select
from deepflow.query.show import is_show, show
from deepflow.schema import Schema
from deepflow.store.store import Store, StoreError

__all__ = ["QueryError", "Result", "execute", "translate"]

SETTINGS = {
    "max_execution_time": 30,
    "max_result_rows": MAX_ROWS,
    "result_overflow_mode": "throw",
    "max_memory_usage": 4_000_000_000,
}
"""What the store grants one query. Set and reset around it: a chDB connection on which a query failed half-way puts the
bytes it had written in front of its next result, and the reset takes them."""
# As a clause of the statement: set on the connection it would outlive the query, since it forbids its own reset.
_READ_ONLY = " SETTINGS readonly = 2"
# ClickHouse's error codes that a reader can do something about; every other one is the server's own fault.
_READER_CODES = {
    43: "A function does not take values of this type",
    53: "Values of different types are compared",
    158: "The query would read too many rows; narrow its time range",
    159: "The query took longer than 30 s; narrow its time range",
    241: "The query needs too much memory; narrow its time range or group by fewer tags",
    386: "Values of different types stand together, for example in if()",
    396: f"The answer would have more than {MAX_ROWS} rows; use LIMIT",
    427: "The regular expression is not valid",
}


def execute(store: Store, schema: Schema, sql: str, db: str, precision: str | None = None) -> Result:
    """Answers a SELECT or SHOW.

    Args:
        sql: one statement in DeepFlow's dialect.
        db: `flow_log`, `flow_metrics`, `deepflow_system`, or "" to find the table by its name alone.
        precision: `1s` or `1m`; None to let the interval of `time()` decide.

    Raises:
        QueryError: the query is wrong, refused or too large; the message is one sentence.
        StoreError: the store failed.
    """
    tokens = tokens_of(sql)
    if is_show(tokens):
        return show(schema, tokens, db).result(lambda text: _read(store, text))
    try:
        compiled = compile_select(schema, parse(sql, tokens), db, precision)
    except RecursionError:
        raise QueryError("The query is nested too deeply.") from None
    return answer(_read(store, compiled.sql), compiled.outputs, compiled.filling)


def _read(store: Store, sql: str) -> pa.Table:
    try:
        return store.query(sql + _READ_ONLY, None, SETTINGS)
    except StoreError as error:
        if reason := _READER_CODES.get(error.code):
            raise QueryError(f"{reason}.") from error
        raise


def translate(schema: Schema, sql: str, db: str, precision: str | None = None) -> str:
    """The ClickHouse SQL of a query; a SHOW that the catalogue answers by itself has none and gives "".

    Raises:
        QueryError: as `execute`.
    """
    tokens = tokens_of(sql)
    if is_show(tokens):
        return show(schema, tokens, db).sql
    try:
        return compile_select(schema, parse(sql, tokens), db, precision).sql
    except RecursionError:
        raise QueryError("The query is nested too deeply.") from None
