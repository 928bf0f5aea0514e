"""Prints what a stopped server's folder holds, as JSON: `python -m tests.api.read_back FOLDER`."""

import json
import sys

from deepflow.ingest import Ingest
from deepflow.resources import Resources
from deepflow.schema import load
from deepflow.store import open_store, prepare

_SUMS = "SELECT sum(request) AS request, sum(rrt_sum) AS rrt_sum FROM flow_metrics.`application.{}`"


def main(folder: str) -> None:
    schema = load()
    store = open_store(f"chdb://{folder}/store")
    prepare(store, schema)
    resources = Resources(f"sqlite:///{folder}/metadata.sqlite", store)
    ingest = Ingest(store, resources, schema, 3600, 3600)
    ingest.roll_up()
    ids = store.query("SELECT _id FROM flow_log.l7_flow_log ORDER BY _id").column("_id").to_pylist()
    keys = store.query("SELECT count() AS n, uniqExact(key, _id) AS u FROM flow_log.trace_key").to_pylist()[0]
    sums = {name: store.query(_SUMS.format(name)).to_pylist()[0] for name in ("1s", "1m")}
    print(json.dumps({"ids": ids, "keys": keys, **sums}))
    ingest.close()
    resources.close()
    store.close()


if __name__ == "__main__":
    main(sys.argv[1])
