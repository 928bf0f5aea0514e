# ruff: noqa: E501  a query stands on one line
"""Answers of the store against the same figures computed with numpy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.query.conftest import SECONDS, SERVICES, START, Ask, Rows

RANGE = f"time >= {START} AND time < {START + SECONDS}"


def _slots(times: np.ndarray, values: np.ndarray) -> dict[int, float]:
    found: dict[int, float] = {}
    for second, value in zip(times.tolist(), values.tolist(), strict=True):
        found[second] = found.get(second, 0) + value
    return found


def test_counts_errors_and_ratio_of_a_service(ask: Ask, rows: Rows) -> None:
    answer = ask(
        "SELECT auto_service_1 AS s, Sum(request) AS n, Sum(error) AS e, Avg(error_ratio) AS r, Count(row) AS c "
        f"FROM l7_flow_log WHERE {RANGE} AND auto_service_1 != '10.1.0.0' GROUP BY auto_service_1 ORDER BY n DESC"
    )
    log, found = rows.log, {row[0]: row[1:] for row in answer.values}
    address = np.where(log["auto_service_id_1"] == 0, log["ip4_1"] & 255, -1)
    assert set(found) == {*SERVICES.values(), "10.1.0.1", "10.1.0.2"}
    for identity, name in SERVICES.items():
        own = log["auto_service_id_1"] == identity
        request = own & np.isin(log["type"], [0, 2])
        response = own & np.isin(log["type"], [1, 2]) & (log["response_status"] != 2)
        error = own & np.isin(log["response_status"], [3, 4])
        assert found[name][:2] == [request.sum(), error.sum()]
        assert found[name][2] == pytest.approx(100 * min(error.sum() / response.sum(), 1))
        assert found[name][3] == own.sum()
    assert found["10.1.0.2"][3] == (address == 2).sum()
    assert [row[1] for row in answer.values] == sorted((row[1] for row in answer.values), reverse=True)


def test_delays_ignore_zeros(ask: Ask, rows: Rows) -> None:
    measured = rows.log["response_duration"][rows.log["response_duration"] > 0]
    answer = ask(
        "SELECT Avg(response_duration) AS a, Max(response_duration) AS b, Min(response_duration) AS c, Percentile(response_duration, 95) AS p, "
        "PercentileExact(response_duration, 50) AS q, Stddev(response_duration) AS s, Spread(response_duration) AS d, "
        "Rspread(response_duration) AS e, Apdex(response_duration, 10000) AS x, Sum(response_duration) AS t FROM l7_flow_log"
    )
    (found,) = answer.values
    tolerated = ((measured > 10_000) & (measured <= 40_000)).sum()
    expected = [
        measured.mean(), measured.max(), measured.min(), np.percentile(measured, 95), np.percentile(measured, 50, method="higher"),
        measured.std(), measured.max() - measured.min(), measured.max() / measured.min(),
        100 * ((measured <= 10_000).sum() + tolerated / 2) / len(measured), measured.sum(),
    ]  # fmt: skip
    assert_allclose(found, expected, rtol=1e-9)
    assert answer.schemas[0]["unit"] == "us"


def test_counters_of_meters_are_summed_per_second_first(ask: Ask, rows: Rows) -> None:
    per_second = _slots(rows.meters["time"], rows.meters["request"])
    values = np.array(list(per_second.values()))
    (found,) = ask(
        "SELECT Max(request) AS a, Min(request) AS b, AAvg(request) AS c, Avg(request) AS d, Sum(request) AS e, "
        "Percentile(request, 90) AS f, Stddev(request) AS g, PerSecond(Sum(request)) AS h, PerSecond(Avg(request)) AS i, Count(row) AS j "
        f"FROM application WHERE {RANGE}", "flow_metrics",
    ).values  # fmt: skip
    total = values.sum()
    assert_allclose(
        found,
        [
            values.max(),
            0,
            values.mean(),
            total / SECONDS,
            total,
            np.percentile(values, 90),
            values.std(),
            total / SECONDS,
            total / SECONDS,
            3000,
        ],
    )


def test_an_answer_does_not_depend_on_its_neighbours(ask: Ask) -> None:
    names = (
        "Avg(rrt)",
        "Max(rrt)",
        "Min(rrt)",
        "Percentile(rrt_max, 95)",
        "Avg(rrt_max)",
        "Uniq(auto_service)",
        "Sum(response)",
        "Last(rrt_max)",
        "Avg(direction_score)",
    )
    alone = [
        ask.one(f"SELECT {name} FROM application WHERE {RANGE}", "flow_metrics")
        for name in names
        if name != "Last(rrt_max)"
    ]
    (beside,) = ask(f"SELECT {', '.join(names)}, Max(request) FROM application WHERE {RANGE}", "flow_metrics").values
    assert_allclose([value for name, value in zip(names, beside, strict=False) if name != "Last(rrt_max)"], alone)


def test_delay_of_meters_is_sum_by_count(ask: Ask, rows: Rows) -> None:
    meters = rows.meters
    assert ask.one("SELECT Avg(rrt) FROM application", "flow_metrics") == pytest.approx(
        meters["rrt_sum"].sum() / meters["rrt_count"].sum()
    )
    measured = meters["rrt_max"][meters["rrt_max"] > 0]
    assert ask.one("SELECT Avg(rrt_max) FROM application", "flow_metrics") == pytest.approx(measured.mean())


def test_ratio_of_meters(ask: Ask, rows: Rows) -> None:
    error, response = (
        _slots(rows.meters["time"], rows.meters["error"]),
        _slots(rows.meters["time"], rows.meters["response"]),
    )
    ratios = np.array([100 * min(error[second] / response[second], 1) for second in error if response[second] > 0])
    (found,) = ask(
        "SELECT Avg(error_ratio) AS a, AAvg(error_ratio) AS b, Max(error_ratio) AS c FROM application", "flow_metrics"
    ).values
    assert_allclose(found, [100 * sum(error.values()) / sum(response.values()), ratios.mean(), ratios.max()])


def test_intervals_average_and_minimum(ask: Ask, rows: Rows) -> None:
    answer = ask(
        f"SELECT time(time, 60) AS toi, Sum(request) AS s, Avg(request) AS a, Min(request) AS m, Max(request) AS x FROM application WHERE {RANGE} GROUP BY toi",
        "flow_metrics", "1s",
    )  # fmt: skip
    per_second = _slots(rows.meters["time"], rows.meters["request"])
    assert [row[0] for row in answer.values] == list(range(START, START + SECONDS, 60))
    for start, total, average, smallest, largest in answer.values:
        own = [per_second[second] for second in range(start, start + 60) if second in per_second]
        assert (total, average, largest) == (sum(own), pytest.approx(sum(own) / 60), max(own))
        assert smallest == (0 if len(own) < 60 else min(own))


def test_window_counts_a_row_in_following_intervals(ask: Ask, rows: Rows) -> None:
    answer = ask(f"SELECT time(time, 60, 2) AS toi, Count(row) AS c FROM l7_flow_log WHERE {RANGE} GROUP BY toi")
    times = rows.log["time"]
    for start, count in answer.values:
        assert count == ((times >= start - 60) & (times < start + 60)).sum()
    assert len(answer.values) == SECONDS // 60 + 1


@pytest.mark.parametrize(("fill", "filler"), [("0", 0), ("null", None), ("'null'", None)])
def test_fill_gives_every_series_every_interval(ask: Ask, rows: Rows, fill: str, filler: int | None) -> None:
    end = START + SECONDS + 119
    answer = ask(
        f"SELECT time(time, 60, 1, {fill}) AS toi, endpoint, Count(row) AS c FROM l7_flow_log "
        f"WHERE time >= {START - 60} AND time <= {end} AND endpoint IN ('/a', '/b') GROUP BY toi, endpoint ORDER BY toi DESC"
    )
    times = [row[0] for row in answer.values]
    assert times == sorted(times, reverse=True) and set(times) == set(range(START - 60, end, 60))
    found = {(row[0], row[1]): row[2] for row in answer.values}
    assert len(found) == len(answer.values) == 2 * 13
    for (start, endpoint), count in found.items():
        own = (rows.log["time"] // 60 * 60 == start) & (rows.log["endpoint"] == endpoint)
        assert count == (own.sum() or filler)


def test_without_fill_empty_intervals_are_absent(ask: Ask) -> None:
    answer = ask(
        f"SELECT time(time, 60, 1, none) AS toi, Sum(request) AS s FROM l7_flow_log WHERE time >= {START - 600} GROUP BY toi"
    )
    assert min(row[0] for row in answer.values) == START


def test_slimit_keeps_whole_series(ask: Ask, rows: Rows) -> None:
    answer = ask(
        f"SELECT time(time, 60) AS toi, auto_service, Sum(request) AS s FROM application.1s WHERE {RANGE} GROUP BY toi, auto_service SLIMIT 1",
        "flow_metrics",
    )
    totals = {
        name: rows.meters["request"][rows.meters["auto_service_id"] == key].sum() for key, name in SERVICES.items()
    }
    best = max(totals, key=lambda name: totals[name])
    assert {row[1] for row in answer.values} == {best} and len(answer.values) == 10
    assert sum(row[2] for row in answer.values) == totals[best]


LOG_FILTERS = {
    "auto_service_1 = 'shop-api'": lambda log: log["auto_service_id_1"] == 1,
    "auto_service_1 IN ('shop-api', 'redis''s \\\\ db')": lambda log: np.isin(log["auto_service_id_1"], [1, 3]),
    "auto_service_1 NOT IN ('shop-api', 'shop-web')": lambda log: ~np.isin(log["auto_service_id_1"], [1, 2]),
    "auto_service_1 LIKE 'SHOP*'": lambda log: np.isin(log["auto_service_id_1"], [1, 2]),
    "auto_service_1 NOT LIKE 'shop-*'": lambda log: ~np.isin(log["auto_service_id_1"], [1, 2]),
    "auto_service_1 REGEXP '^shop-(api|x)$'": lambda log: log["auto_service_id_1"] == 1,
    "auto_service_1 = '10.1.0.1'": lambda log: (log["auto_service_id_1"] == 0) & (log["ip4_1"] % 256 == 1),
    "auto_service = 'shop-api'": lambda log: log["auto_service_id_1"] == 1,
    "exist(auto_service_1)": lambda log: log["auto_service_id_1"] > 0,
    "NOT exist(auto_service_1)": lambda log: log["auto_service_id_1"] == 0,
    "auto_service_id_1 = 2": lambda log: log["auto_service_id_1"] == 2,
    "ip_0 = '10.0.0.3'": lambda log: log["ip4_0"] % 256 == 3,
    "ip_0 != '10.0.0.3'": lambda log: log["ip4_0"] % 256 != 3,
    "ip_0 = '10.0.0.0/30'": lambda log: log["ip4_0"] % 256 < 4,
    "ip_0 LIKE '*.7'": lambda log: log["ip4_0"] % 256 == 7,
    "mask(ip_0, 30) = '10.0.0.4'": lambda log: log["ip4_0"] % 256 >= 4,
    "l7_protocol = 'HTTP'": lambda log: log["l7_protocol"] == 20,
    "Enum(l7_protocol) IN ('http', 'Redis')": lambda log: np.isin(log["l7_protocol"], [20, 80]),
    "l7_protocol >= 80": lambda log: log["l7_protocol"] >= 80,
    "l7_protocol LIKE '*s*'": lambda log: np.isin(log["l7_protocol"], [80, 120]),
    "Enum(tap_side) = 'Client Process'": lambda log: log["observation_point"] == "c-p",
    "observation_point = 'c-p'": lambda log: log["observation_point"] == "c-p",
    "agent = 'agent-two'": lambda log: log["agent_id"] == 2,
    "vtap_id = 2": lambda log: log["agent_id"] == 2,
    "host_1 = ''": lambda log: log["host_id_1"] == 0,
    "host_1 = 'node-1'": lambda log: log["host_id_1"] == 1,
    "syscall_trace_id = 7": lambda log: (log["syscall_trace_id_request"] == 7) | (log["syscall_trace_id_response"] == 7),
    "syscall_trace_id != 7": lambda log: (log["syscall_trace_id_request"] != 7) & (log["syscall_trace_id_response"] != 7),
    "attribute.cc = 'opensource'": lambda log: np.arange(len(log["time"])) % 2 == 1,
    "exist(`attribute.a.b`) AND `attribute.a.b` = '5'": lambda log: np.arange(len(log["time"])) == 5,
    "response_code = 404 OR (server_port = '80' AND NOT response_code = 200)": lambda log: (log["response_code"] == 404) | ((log["server_port"] == 80) & (log["response_code"] != 200)),
    "response_duration > 50000": lambda log: log["response_duration"] > 50_000,
    "response_code BETWEEN 300 AND 450": lambda log: log["response_code"] == 404,
    f"{START} + 10 <= time AND time < {START} + 2 * 10": lambda log: (log["time"] >= START + 10) & (log["time"] < START + 20),
    f"start_time >= {(START + 300) * 1_000_000}": lambda log: log["time"] >= START + 300,
    f"_id = {(START << 32) + 17}": lambda log: log["_id"] == (START << 32) + 17,
    "1 = 1": lambda log: np.full(len(log["time"]), True),
    "endpoint LIKE '/c*'": lambda log: log["endpoint"] == "/c/*",
}  # fmt: skip


@pytest.mark.parametrize("where", LOG_FILTERS)
def test_filters_keep_the_right_rows(ask: Ask, rows: Rows, where: str) -> None:
    assert ask.one(f"SELECT Count(row) FROM l7_flow_log WHERE {where}") == LOG_FILTERS[where](rows.log).sum()


def test_rows_are_translated_after_they_are_cut(ask: Ask, rows: Rows) -> None:
    answer = ask(
        "SELECT _id, toString(_id) AS t, time, start_time, ip_0, agent, Enum(l7_protocol) AS p, is_tls FROM l7_flow_log ORDER BY _id DESC LIMIT 2 OFFSET 1"
    )
    last = len(rows.log["time"]) - 2
    log, first = rows.log, answer.values[0]
    agents, protocols = {1: "agent-one", 2: "agent-two"}, {20: "HTTP", 80: "Redis", 120: "DNS"}
    assert first == [
        int(log["_id"][last]), str(log["_id"][last]), int(log["time"][last]), int(log["time"][last]) * 1_000_000 + 5,
        f"10.0.0.{log['ip4_0'][last] % 256}", agents[int(log["agent_id"][last])], protocols[int(log["l7_protocol"][last])], 0,
    ]  # fmt: skip
    assert len(answer.values) == 2


def test_star_and_order_by_name(ask: Ask) -> None:
    answer = ask("SELECT * FROM l7_flow_log LIMIT 3")
    assert {"auto_service_1", "response_duration", "ip_0", "attribute"} <= set(answer.columns) and len(
        answer.values
    ) == 3
    names = [row[0] for row in ask("SELECT auto_service_1 FROM l7_flow_log ORDER BY auto_service_1 LIMIT 5000").values]
    assert names == sorted(names) and len(names) == 4000


def test_tag_functions(ask: Ask, rows: Rows) -> None:
    values, counts = np.unique(rows.log["endpoint"][rows.log["endpoint"] != ""], return_counts=True)
    answer = ask(
        "SELECT TopK(endpoint, 2) AS top, Uniq(ip_0) AS u, countDistinct(endpoint, agent) AS d, Any(agent) AS a FROM l7_flow_log"
    )
    assert answer.columns == ["top", "counts_top", "u", "d", "a"]
    (found,) = answer.values
    best = np.argsort(-counts)[:2]
    assert found[:4] == [values[best].tolist(), counts[best].tolist(), 8, 8]
    assert found[4] in {"agent-one", "agent-two"}
    types = ask(
        "SELECT auto_service_1, node_type(auto_service_1) AS n, icon_id(auto_service_1) AS i FROM l7_flow_log GROUP BY auto_service_1"
    )
    assert {row[0]: row[1:] for row in types.values}["shop-api"] == ["gprocess", 9]
    assert {row[0]: row[1:] for row in types.values}["10.1.0.0"] == ["ip", 0]


def test_arithmetic_is_null_safe(ask: Ask) -> None:
    (found,) = ask(
        "SELECT Sum(request)/(Sum(error)-Sum(error)) AS a, Percentage(Sum(error), Sum(request)) AS b, (Max(request)+1)*2 AS c, -Sum(log_count) AS d FROM l7_flow_log"
    ).values
    assert found[0] is None and 0 < found[1] < 100 and found[2:] == [4, -4000]


def test_own_counters(ask: Ask) -> None:
    answer = ask(
        "SELECT `tag.cpu` AS cpu, Sum(`metrics.rx`) AS rx, Sum(metrics.dropped) AS d FROM deepflow_agent_capture GROUP BY `tag.cpu` ORDER BY cpu",
        "deepflow_system",
    )
    assert answer.values == [["0", 10.0, 2.0], ["1", 30.0, None]]
    assert ask.one(f"SELECT Max(metrics.rx) FROM deepflow_agent_capture WHERE time >= {START}", "deepflow_system") == 30
    assert ask("SHOW TABLES", "deepflow_system").values == [
        ["deepflow_agent_capture", []],
        ["deepflow_server_ingest", []],
    ]


def test_data_precision_chooses_the_table(ask: Ask) -> None:
    for sql, precision in (("time(time, 60)", None), ("time(time, 1)", "1m")):
        assert (
            ask(f"SELECT {sql} AS t, Sum(request) AS s FROM application GROUP BY t", "flow_metrics", precision).values
            == []
        )
    assert ask("SELECT Sum(request) AS s FROM `application.1m`", "flow_metrics").values[0][0] in {0, None}


def test_no_rows_answer_null_not_nan(ask: Ask) -> None:
    (found,) = ask(
        "SELECT Avg(response_duration) AS a, Percentile(response_duration, 95) AS p, Stddev(response_duration) AS s FROM l7_flow_log WHERE time = 5"
    ).values
    assert found == [None, None, None]
