# ruff: noqa: E501  a query stands on one line
"""Answers about flows and network meters, at both precisions, against the same figures computed with numpy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from deepflow.query import QueryError
from tests.query.conftest import Ask
from tests.query_network.rows import BEGIN, DELAYS, MINUTES, PROCESSES, RANGE, Columns, Network

FAILS = {
    "client_establish_fail": (10, 13, 18),
    "server_establish_fail": (7, 15, 19),
    "tcp_establish_fail": (7, 10, 13, 15, 18, 19),
    "tcp_transfer_fail": (2, 3, 9, 17),
    "tcp_rst_fail": (2, 9, 15, 18, 19),
    "client_source_port_reuse": (13,),
    "server_syn_miss": (7,),
    "client_establish_other_rst": (18,),
    "client_ack_miss": (10,),
    "server_reset": (15,),
    "server_establish_other_rst": (19,),
    "client_rst_flow": (9,),
    "server_rst_flow": (2,),
    "server_queue_lack": (17,),
    "tcp_timeout": (3,),
    "client_half_close_flow": (11,),
    "server_half_close_flow": (8,),
}
METER = {13: "client_source_port_reuse", 7: "server_syn_miss", 18: "client_establish_other_rst", 10: "client_ack_miss", 15: "server_reset", 19: "server_establish_other_rst", 9: "client_rst_flow", 2: "server_rst_flow", 17: "server_queue_lack", 3: "tcp_timeout"}  # fmt: skip
PAIRED = ("byte", "packet", "l3_byte", "l4_byte", "retrans", "zero_win", "ooo")
QUOTIENTS = {
    "bpp": ("byte", "packet", 1),
    "bpp_tx": ("byte_tx", "packet_tx", 1),
    "bpp_rx": ("byte_rx", "packet_rx", 1),
    "retrans_syn_ratio": ("retrans_syn", "syn_count", 100),
    "retrans_synack_ratio": ("retrans_synack", "synack_count", 100),
    "retrans_ratio": ("retrans", "packet", 100),
    "retrans_tx_ratio": ("retrans_tx", "packet_tx", 100),
    "retrans_rx_ratio": ("retrans_rx", "packet_rx", 100),
    "zero_win_ratio": ("zero_win", "packet", 100),
    "zero_win_tx_ratio": ("zero_win_tx", "packet_tx", 100),
    "zero_win_rx_ratio": ("zero_win_rx", "packet_rx", 100),
    "tcp_establish_fail_ratio": ("tcp_establish_fail", "closed_flow", 100),
    "client_establish_fail_ratio": ("client_establish_fail", "closed_flow", 100),
    "server_establish_fail_ratio": ("server_establish_fail", "closed_flow", 100),
    "tcp_transfer_fail_ratio": ("tcp_transfer_fail", "closed_flow", 100),
    "tcp_rst_fail_ratio": ("tcp_rst_fail", "closed_flow", 100),
    "l7_error_ratio": ("l7_error", "l7_response", 100),
    "l7_client_error_ratio": ("l7_client_error", "l7_response", 100),
    "l7_server_error_ratio": ("l7_server_error", "l7_response", 100),
}
SECONDS = MINUTES * 60


def _both_ways(columns: Columns) -> Columns:
    found = columns | {name: columns[f"{name}_tx"] + columns[f"{name}_rx"] for name in PAIRED}
    return found | {"l7_error": columns["l7_client_error"] + columns["l7_server_error"]}


@pytest.fixture
def flows(sent: Network) -> Columns:
    """Rows of l4_flow_log with the metrics that close_type tells."""
    rows = _both_ways(sent.flows)
    silent = (rows["close_type"] == 3) & (rows["protocol"] != 6)
    fails = {name: np.isin(rows["close_type"], types) & ~silent for name, types in FAILS.items()}
    return rows | fails | {"closed_flow": rows["close_type"] != 5, "new_flow": rows["is_new_flow"]}


@pytest.fixture(params=["network", "network_map"])
def meters(request: pytest.FixtureRequest, sent: Network) -> tuple[str, Columns]:
    """A table of meters and its rows with the sums of single counters."""
    rows = _both_ways(sent.ends if request.param == "network" else sent.pairs)
    fails = {name: sum((rows[METER[one]] for one in types), np.zeros(1, int)) for name, types in FAILS.items() if set(types) <= set(METER)}  # fmt: skip
    return request.param, rows | fails


def _grouped(columns: Columns, name: str, precision: str) -> np.ndarray:
    """Sum of a metric by slot that has rows."""
    slots = columns["time"] // {"1s": 1, "1m": 60}[precision]
    found = np.zeros(int(slots.max() - slots.min()) + 1)
    np.add.at(found, slots - slots.min(), columns[name])
    return found[np.isin(np.arange(len(found)), slots - slots.min())]


def _values(ask: Ask, select: list[str], table: str, where: str = RANGE, precision: str | None = None) -> list[float]:
    db = "flow_metrics" if table.startswith("network") else "flow_log"
    named = ", ".join(f"{one} AS c{index}" for index, one in enumerate(select))
    (found,) = ask(f"SELECT {named} FROM {table} WHERE {where}", db, precision).values
    return found


def test_counters_of_flows(ask: Ask, flows: Columns) -> None:
    names = [*PAIRED, *FAILS, "l7_error", "new_flow", "closed_flow", "byte_tx", "syn_count", "l7_request"]
    found = _values(ask, [f"Sum({name})" for name in names], "l4_flow_log")
    assert found == [flows[name].sum() for name in names]
    assert min(found) > 0


@pytest.mark.parametrize("name", QUOTIENTS)
def test_ratios_of_flows(ask: Ask, flows: Columns, name: str) -> None:
    above, below, scale = QUOTIENTS[name]
    a, b = flows[above].astype(float), flows[below].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = (a / b)[b > 0]
    each = np.minimum(each, 1) * scale if scale == 100 else each
    whole = a.sum() / b.sum()
    expected = [
        min(whole, 1) * 100 if scale == 100 else whole,
        each.mean(),
        each.max(),
        np.percentile(each, 90, method="higher"),
    ]
    asked = [f"Avg({name})", f"AAvg({name})", f"Max({name})", f"PercentileExact({name}, 90)"]
    assert_allclose(_values(ask, asked, "l4_flow_log"), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["rtt", "rtt_client", "rtt_server", "tls_rtt", "srt", "art", "cit", "rrt", "duration", "srt_max", "rtt_max"]
)
def test_delays_of_flows_leave_out_zeros(ask: Ask, flows: Columns, name: str) -> None:
    if f"{name}_sum" in flows:
        total, count = flows[f"{name}_sum"], flows[f"{name}_count"]
        each = (total / np.maximum(count, 1))[count > 0]
        average = total.sum() / count.sum()
    else:
        stored = flows[{"rtt_max": "rtt"}.get(name, name)]
        each = stored[stored > 0].astype(float)
        average = each.mean()
    assert 0 < len(each) < 3000
    tolerated = ((each > 5000) & (each <= 20_000)).sum()
    expected = [average, each.max(), each.min(), np.percentile(each, 95), each.std(), 100 * ((each <= 5000).sum() + tolerated / 2) / len(each)]  # fmt: skip
    asked = [
        f"Avg({name})",
        f"Max({name})",
        f"Min({name})",
        f"Percentile({name}, 95)",
        f"Stddev({name})",
        f"Apdex({name}, 5000)",
    ]
    assert_allclose(_values(ask, asked, "l4_flow_log"), expected, rtol=1e-9)


@pytest.mark.parametrize("precision", ["1s", "1m"])
def test_counters_of_meters(ask: Ask, meters: tuple[str, Columns], precision: str) -> None:
    table, rows = meters
    for name in (
        "byte",
        "packet_rx",
        "retrans",
        "ooo",
        "new_flow",
        "closed_flow",
        "tcp_establish_fail",
        "tcp_transfer_fail",
        "tcp_rst_fail",
        "server_establish_fail",
        "l7_error",
        "l4_byte",
    ):
        slots = _grouped(rows, name, precision)
        missing = len(slots) < (SECONDS if precision == "1s" else MINUTES)
        per = SECONDS if precision == "1s" else MINUTES
        asked = [
            f"Sum({name})",
            f"Avg({name})",
            f"Max({name})",
            f"Min({name})",
            f"Percentile({name}, 80)",
            f"PerSecond(Sum({name}))",
        ]
        expected = [
            slots.sum(),
            slots.sum() / per,
            slots.max(),
            0 if missing else slots.min(),
            np.percentile(slots, 80),
            slots.sum() / SECONDS,
        ]
        assert_allclose(_values(ask, asked, table, precision=precision), expected, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("precision", ["1s", "1m"])
def test_ratios_of_meters(ask: Ask, meters: tuple[str, Columns], precision: str) -> None:
    table, rows = meters
    for name, (above, below, scale) in QUOTIENTS.items():
        a, b = _grouped(rows, above, precision), _grouped(rows, below, precision)
        each = a[b > 0] / b[b > 0]
        each = np.minimum(each, 1) * scale if scale == 100 else each
        whole = a.sum() / b.sum()
        expected = [min(whole, 1) * 100 if scale == 100 else whole, each.mean(), each.max()]
        asked = [f"Avg({name})", f"AAvg({name})", f"Max({name})"]
        assert_allclose(_values(ask, asked, table, precision=precision), expected, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("precision", ["1s", "1m"])
def test_delays_of_meters_are_sum_by_count(ask: Ask, meters: tuple[str, Columns], precision: str) -> None:
    table, rows = meters
    for name in DELAYS:
        asked = [f"Avg({name})", f"Max({name}_max)"]
        expected = [rows[f"{name}_sum"].sum() / rows[f"{name}_count"].sum(), rows[f"{name}_max"].max()]
        assert_allclose(_values(ask, asked, table, precision=precision), expected, rtol=1e-9, err_msg=name)


def test_flow_load_of_a_minute_is_its_fullest_second_of_each_series(ask: Ask, meters: tuple[str, Columns]) -> None:
    table, rows = meters
    sides = ("_0", "_1") if table == "network_map" else ("",)
    keys = ["server_port", "observation_point"] + [f"{name}{side}" for side in sides for name in ("process_id", "ip4")]
    keys += ["capture_nic"] if table == "network_map" else []
    seconds: dict[tuple[object, ...], int] = {}
    for index in range(len(rows["time"])):
        key = (*(rows[name][index] for name in keys), int(rows["time"][index]))
        seconds[key] = seconds.get(key, 0) + int(rows["flow_load"][index])
    minutes: dict[tuple[object, ...], int] = {}
    for (*series, second), load in seconds.items():
        at = (*series, int(str(second)) // 60)
        minutes[at] = max(minutes.get(at, 0), load)
    expected = np.zeros(MINUTES)
    for (*_, minute), load in minutes.items():
        expected[int(str(minute)) - BEGIN // 60] += load
    answer = ask(
        f"SELECT time(time, 60) AS toi, Max(flow_load) AS m, Sum(byte) AS b FROM {table} WHERE {RANGE} GROUP BY toi",
        "flow_metrics",
        "1m",
    )
    assert [row[1] for row in answer.values] == expected.tolist()
    bytes_a_minute = _grouped(rows, "byte", "1m")
    assert [row[2] for row in answer.values] == bytes_a_minute.tolist()
    assert _values(ask, ["Max(flow_load)"], table, precision="1s") == [_grouped(rows, "flow_load", "1s").max()]


def test_processes_of_both_ends_are_named(ask: Ask, sent: Network) -> None:
    pairs = sent.pairs
    answer = ask("SELECT auto_service_0 AS a, auto_service_1 AS b, Sum(byte_tx) AS n FROM network_map WHERE exist(auto_service_0) AND exist(auto_service_1) GROUP BY a, b", "flow_metrics", "1m")  # fmt: skip
    found = {(row[0], row[1]): row[2] for row in answer.values}
    expected = {
        (client, server): pairs["byte_tx"][(pairs["process_id_0"] == one) & (pairs["process_id_1"] == other)].sum()
        for one, client in PROCESSES.items()
        for other, server in PROCESSES.items()
    }
    assert found == expected
    ends = sent.ends
    answer = ask(
        "SELECT auto_instance AS a, Count(row) AS n FROM network WHERE auto_instance_type = 'Process' GROUP BY a",
        "flow_metrics",
        "1s",
    )
    assert {row[0]: row[1] for row in answer.values} == {
        f"{name}:{pid}": (ends["process_id"] == pid).sum() for pid, name in PROCESSES.items()
    }


FILTERS = {
    "close_type = 'Transfer - Server RST'": lambda rows: rows["close_type"] == 2,
    "Enum(close_type) LIKE 'Est. - *'": lambda rows: np.isin(rows["close_type"], [7, 10, 13, 15, 18, 19]),
    "tcp_flags_bit_0 = 'SYN|ACK'": lambda rows: (rows["tcp_flags_bit_0"] & 18) == 18,
    "tcp_flags_bit_0 = 'fin'": lambda rows: (rows["tcp_flags_bit_0"] & 1) == 1,
    "tcp_flags_bit_0 = 16": lambda rows: rows["tcp_flags_bit_0"] == 16,
    "Enum(tcp_flags_bit_0) = 'RST'": lambda rows: (rows["tcp_flags_bit_0"] & 4) == 4,
    "tcp_flags_bit_0 REGEXP '^FIN'": lambda rows: (rows["tcp_flags_bit_0"] & 1) == 1,
    "mac_0 = '02:42:ac:00:00:01'": lambda rows: rows["mac_0"] == 0x0242AC000001,
    "mac_0 = 'AC:00:00:02'": lambda rows: rows["mac_0"] == 0x0242AC000002,
    "mac_0 LIKE '02:42:*'": lambda rows: rows["mac_0"] > 0,
    "capture_nic = '0a:0b:0c:0d'": lambda rows: rows["capture_nic"] > 0,
    "tap_port = 'ff:ff:0a:0b:0c:0d'": lambda rows: rows["capture_nic"] > 0,
    "NOT exist(capture_nic)": lambda rows: rows["capture_nic"] == 0,
    "capture_nic_name = 'eth0'": lambda rows: rows["capture_nic"] > 0,
    "capture_nic_name != 'eth0'": lambda rows: rows["capture_nic"] == 0,
    "tap_port_name LIKE 'ETH*'": lambda rows: rows["capture_nic"] > 0,
    "capture_nic_name REGEXP '^eth'": lambda rows: rows["capture_nic"] > 0,
    "capture_nic_name IN ('eth0', 'eth1')": lambda rows: rows["capture_nic"] > 0,
    "capture_nic_name = ''": lambda rows: rows["capture_nic"] == 0,
    "NOT exist(capture_nic_name)": lambda rows: rows["capture_nic"] == 0,
    "capture_nic_name = 'eth1'": lambda rows: np.zeros(len(rows["time"]), bool),
    "tunnel_type = 'VXLAN' AND tunnel_tx_ip_0 = '192.168.0.1'": lambda rows: rows["tunnel_tx_ip4_0"] == 0xC0A80001,
    "tunnel_tx_ip_0 = '192.168.0.0/16'": lambda rows: rows["tunnel_type"] == 1,
    "exist(tunnel_tx_ip_0)": lambda rows: rows["tunnel_type"] == 1,
    "nat_real_ip_0 = '1.2.3.4'": lambda rows: rows["nat_real_ip4_0"] > 0,
    "nat_real_ip_0 = '::1'": lambda rows: np.zeros(len(rows["time"]), bool),
    "NOT exist(nat_real_ip_0)": lambda rows: rows["nat_real_ip4_0"] == 0,
    "protocol = 'udp'": lambda rows: rows["protocol"] == 17,
    "tap_side IN ('c', 'Server NIC')": lambda rows: np.isin(rows["observation_point"], ["c", "s"]),
    "auto_service_1 = 'db' AND byte > 1000": lambda rows: (rows["process_id_1"] == 103) & (rows["byte"] > 1000),
    "rtt > 20000": lambda rows: rows["rtt"] > 20_000,
    "is_new_flow = 1": lambda rows: rows["is_new_flow"] == 1,
}


@pytest.mark.parametrize("where", FILTERS)
def test_filters_keep_the_right_flows(ask: Ask, flows: Columns, where: str) -> None:
    assert _values(ask, ["Count(row)"], "l4_flow_log", where) == [FILTERS[where](flows).sum()]


def test_rows_are_grouped_by_the_name_of_the_interface(ask: Ask, flows: Columns, sent: Network) -> None:
    answer = ask("SELECT capture_nic_name AS nic, Count(row) AS n FROM l4_flow_log GROUP BY nic ORDER BY nic")
    known = int((flows["capture_nic"] > 0).sum())
    assert answer.values == [["", len(flows["time"]) - known], ["eth0", known]]
    for precision in ("1s", "1m"):
        answer = ask(
            "SELECT capture_nic_name, Sum(byte) AS b FROM network_map WHERE capture_nic_name = 'eth0' "
            "GROUP BY capture_nic_name",
            "flow_metrics",
            precision,
        )
        seen = sent.pairs["capture_nic"] > 0
        assert answer.values == [["eth0", (sent.pairs["byte_tx"] + sent.pairs["byte_rx"])[seen].sum()]]


@pytest.mark.parametrize("table", ["l4_flow_log", "l7_flow_log", "network_map", "application_map"])
def test_every_table_of_packets_has_the_name_of_the_interface(ask: Ask, table: str) -> None:
    db = "flow_log" if table.endswith("_log") else "flow_metrics"
    shown = ask(f"SHOW tags FROM {table} WHERE name = 'capture_nic_name'", db)
    assert [row[4] for row in shown.values] == ["string"]
    values = ask(f"SHOW tag capture_nic_name values FROM {table}", db).values
    assert values == ([["eth0", "eth0"]] if table in {"l4_flow_log", "network_map"} else [])
    asked = ask(f"SELECT capture_nic_name FROM {table} WHERE capture_nic_name = 'eth0' LIMIT 1", db)
    assert len(asked.values) == len(values)


def test_what_is_no_address_or_flag_is_refused(ask: Ask) -> None:

    for where, sentence in (
        ("mac_0 = '02:42'", "mac_0 is an Ethernet address"),
        ("tcp_flags_bit_0 = 'SYN|NIX'", "is no set of tcp_flags_bit"),
        ("tunnel_tx_ip_0 = 'nix'", "is not an IP address"),
        ("if(protocol = 6, 'a', 2) = 2", "different types"),
    ):
        with pytest.raises(QueryError, match=sentence):
            ask(f"SELECT Count(row) FROM l4_flow_log WHERE {where}")


def test_tags_of_flows_are_shown_as_people_write_them(ask: Ask, flows: Columns) -> None:
    answer = ask("SELECT _id, Enum(tcp_flags_bit_0) AS f, mac_0, capture_nic, tunnel_tx_ip_0, nat_real_ip_0, Enum(close_type) AS c, capture_network_type AS t FROM l4_flow_log LIMIT 5000")  # fmt: skip
    names = ("FIN", "SYN", "RST", "PSH", "ACK")
    rows = {int(row[0]): row[1:] for row in answer.values}
    assert len(rows) == len(flows["_id"])
    for index, identity in enumerate(flows["_id"].tolist()):
        flags = "|".join(name for bit, name in enumerate(names) if flows["tcp_flags_bit_0"][index] >> bit & 1)
        tunnel = int(flows["tunnel_tx_ip4_0"][index])
        assert rows[identity][:5] == [
            flags,
            f"02:42:ac:00:00:0{flows['mac_0'][index] - 0x0242AC000000}",
            "0a:0b:0c:0d" if flows["capture_nic"][index] else "",
            f"192.168.0.{tunnel - 0xC0A80000}" if tunnel else "",
            "1.2.3.4" if flows["nat_real_ip4_0"][index] else "",
        ]
    assert {row[5] for row in rows.values()} >= {"Normal", "Force Report", "Est. - Server SYN Miss"}


def test_star_gives_every_tag_and_metric_of_a_flow(ask: Ask) -> None:
    answer = ask("SELECT * FROM l4_flow_log LIMIT 2")
    assert {"mac_0", "byte", "rtt", "tcp_establish_fail_ratio", "tunnel_rx_ip_1"} <= set(answer.columns)


def test_if_chooses_row_by_row(ask: Ask, flows: Columns) -> None:
    answer = ask(
        "SELECT if(protocol = 'UDP' OR byte > 40000, 'big', observation_point) AS k, Count(row) AS n FROM l4_flow_log GROUP BY k"
    )
    chosen = np.where((flows["protocol"] == 17) | (flows["byte"] > 40_000), "big", flows["observation_point"])
    assert dict(answer.values) == {name: (chosen == name).sum() for name in set(chosen.tolist())}
    count = _values(
        ask, ["Count(row)"], "l4_flow_log", "if(byte > 1000, rtt, 0) > 5 AND if(protocol = 6, 't', 'u') = 't'"
    )
    assert count == [((flows["byte"] > 1000) & (flows["rtt"] > 5) & (flows["protocol"] == 6)).sum()]


def test_histogram_is_over_the_values_of_all_groups(ask: Ask, flows: Columns) -> None:
    (found,) = ask("SELECT Histogram(Sum(byte), 4) AS h FROM l4_flow_log GROUP BY ip_0, ip_1, observation_point").values
    groups: dict[tuple[int, int, str], int] = {}
    for index in range(len(flows["byte"])):
        key = (int(flows["ip4_0"][index]), int(flows["ip4_1"][index]), str(flows["observation_point"][index]))
        groups[key] = groups.get(key, 0) + int(flows["byte"][index])
    bins = found[0]
    assert len(bins) == 4 and sum(one[2] for one in bins) == pytest.approx(len(groups))
    assert bins[0][0] == min(groups.values()) and bins[-1][1] == max(groups.values())
