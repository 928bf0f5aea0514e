"""`POST /v1/query/`: DeepFlow SQL."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deepflow.api.body import RequestError, read_object
from deepflow.api.state import state_of
from deepflow.query import QueryError, execute
from deepflow.store import StoreError

_MAX_BODY_BYTES = 1 << 20


async def query(request: Request) -> JSONResponse:
    """Run a query of the DeepFlow dialect (docs/query.md): form or JSON with `db`, `sql`, `data_precision` (optional).

    Answers {"OPT_STATUS": "SUCCESS", "DESCRIPTION": "", "result": {"columns", "values", "schemas"}}; a wrong query gets
    400 {"OPT_STATUS": "INVALID_PARAMETERS", "DESCRIPTION": sentence}.
    """
    state = state_of(request)
    try:
        asked = await read_object(request, _MAX_BODY_BYTES)
        sql = asked.get("sql")
        if not isinstance(sql, str) or not sql.strip():
            raise RequestError("The request lacks the key sql.")
        precision = asked.get("data_precision") or None
        db = str(asked.get("db") or "")
        result = await state.read(execute, state.store, state.schema, sql, db, precision and str(precision))
    except RequestError as error:
        return refusal(str(error), error.status)
    except QueryError as error:
        return refusal(str(error))
    except StoreError as error:
        return refusal(str(error), 500, "SERVER_ERROR")
    body = {"columns": result.columns, "values": result.values, "schemas": result.schemas}
    return JSONResponse({"OPT_STATUS": "SUCCESS", "DESCRIPTION": "", "result": body})


def refusal(sentence: str, status: int = 400, opt_status: str = "INVALID_PARAMETERS") -> JSONResponse:
    """An error in DeepFlow's shape."""
    return JSONResponse({"OPT_STATUS": opt_status, "DESCRIPTION": sentence}, status)


routes = [Route("/v1/query", query, methods=["POST"]), Route("/v1/query/", query, methods=["POST"])]
