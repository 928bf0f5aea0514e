"""What the core says of a capture in flows, it says again in meters."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from deepflow import _core
from deepflow.ingest.batch import decode
from deepflow.schema import Schema

SUMS = (
    "packet_tx", "packet_rx", "byte_tx", "byte_rx", "l3_byte_tx", "l3_byte_rx", "l4_byte_tx", "l4_byte_rx", "syn_count",
    "synack_count", "retrans_syn", "retrans_synack", "retrans_tx", "retrans_rx", "zero_win_tx", "zero_win_rx",
    "ooo_tx", "ooo_rx", "srt_sum", "srt_count", "art_sum", "art_count", "cit_sum", "cit_count", "rrt_sum", "rrt_count",
    "l7_request", "l7_response", "l7_client_error", "l7_server_error",
)  # fmt: skip
LARGEST = ("srt_max", "art_max", "cit_max", "rrt_max")


def test_flows_and_meters_of_a_capture_have_the_same_sums(schema: Schema, fixtures_dir: Path) -> None:
    """Through `decode`, as the server takes them: names, order and types of all columns are checked with it."""
    captures = sorted((fixtures_dir / "deepflow" / "flow_generator").glob("*.pcap"))
    captures += sorted((fixtures_dir / "pcaps" / "tcp").glob("*.pcap*"))
    wire, compared = schema.wire_tables(), 0
    for capture in captures:
        tables: dict[str, list[pa.Table]] = {"l4_flow_log": [], "network_map.1s": [], "network.1s": []}
        for name, rows, body in _core.replay(str(capture), "{}"):
            if name in tables:
                batch = decode(wire[name][0], name, body)
                assert batch.num_rows == rows
                tables[name].append(batch)
        if not all(tables.values()):
            continue
        flows, pairs, _ = (pa.concat_tables(batches) for batches in tables.values())
        sums = [pc.sum(flows[name]).as_py() for name in SUMS]
        assert sums == [pc.sum(pairs[name]).as_py() for name in SUMS], capture.name
        assert [pc.max(flows[name]) for name in LARGEST] == [pc.max(pairs[name]) for name in LARGEST], capture.name
        assert pc.sum(flows["is_new_flow"]) == pc.sum(pairs["new_flow"]), capture.name
        assert pc.sum(pc.not_equal(flows["close_type"], 5)) == pc.sum(pairs["closed_flow"]), capture.name
        compared += 1
    assert compared >= 20
