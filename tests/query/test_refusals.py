# ruff: noqa: E501  a query stands on one line
"""What must not be answered: broken SQL, unknown names, and everything that reaches past the catalogue."""

import random

import pytest

from deepflow.query import QueryError, translate
from deepflow.schema import Schema
from tests.query.conftest import Ask

SENTENCES = {
    "": "empty",
    "   ;": "empty",
    "SELEC x FROM l7_flow_log": "valid SQL|SELECT or SHOW",
    "SELECT FROM l7_flow_log": "selects nothing",
    "SELECT endpoint FROM l7_flow_log WHERE (": "valid SQL",
    "SELECT 'abc FROM l7_flow_log": "quote",
    "SELECT endpoint": "FROM",
    "SELECT endpoint FROM l7_flow_logs": 'did you mean "l7_flow_log"',
    "SELECT endpont FROM l7_flow_log": 'did you mean "endpoint"',
    "SELECT Summ(request) FROM l7_flow_log": 'did you mean "Sum"',
    "SELECT Sum(requst) FROM l7_flow_log": 'did you mean "request"',
    "SELECT Sum(endpoint) FROM l7_flow_log": "is a tag",
    "SELECT Sum(error_ratio) FROM l7_flow_log": "percentage",
    "SELECT Apdex(request, 5) FROM l7_flow_log": "counter",
    "SELECT Percentile(response_duration, 101) FROM l7_flow_log": "within",
    "SELECT TopK(ip_0, 111) FROM l7_flow_log": "within",
    "SELECT auto_service FROM l7_flow_log": "auto_service_0 or auto_service_1",
    "SELECT endpoint, Sum(request) FROM l7_flow_log": "GROUP BY",
    "SELECT Enum(endpoint) FROM l7_flow_log": "enumeration",
    "SELECT request FROM l7_flow_log HAVING request > 1": "HAVING",
    "SELECT Sum(request) AS a, Sum(error) AS a FROM l7_flow_log": "Two columns",
    "SELECT endpoint AS _k0 FROM l7_flow_log": "used by the server",
    "SELECT time(time, 0) AS t, Count(row) FROM l7_flow_log GROUP BY t": "interval",
    "SELECT time(time, 60, 1, 7) AS t, Count(row) FROM l7_flow_log GROUP BY t": "fill",
    "SELECT PerSecond(Sum(request)) FROM l7_flow_log": "time range",
    "SELECT endpoint FROM l7_flow_log LIMIT 100000000": "LIMIT",
    "SELECT Histogram(Sum(request), 5), Sum(request) FROM l7_flow_log": "one row of all groups",
    "SELECT Histogram(Sum(request), 5) + 1 FROM l7_flow_log": "stands alone",
    "SELECT Histogram(request, 5) FROM l7_flow_log": "takes a function",
    "SELECT Histogram(Sum(request), 0) FROM l7_flow_log": "1 to 250",
    "SELECT if(type, 1, 2) FROM l7_flow_log": "condition",
    "SELECT endpoint FROM l7_flow_log WHERE server_port = 'x'": "is a number",
    "SELECT endpoint FROM l7_flow_log WHERE time > 'yesterday'": "not a time",
    "SELECT endpoint FROM l7_flow_log WHERE ip_0 = 'nobody'": "not an IP address",
    "SELECT endpoint FROM l7_flow_log WHERE endpoint REGEXP '(?=x)'": "RE2",
    "SELECT endpoint FROM l7_flow_log WHERE server_port = 1 / 0": "zero",
    "SHOW": "SHOW knows",
    "SHOW tags FROM nothing": "Unknown table",
    "SHOW enum x values": "enumeration",
    "SHOW tag nothing values FROM l7_flow_log": "Unknown tag",
    "SHOW tables WHERE nam = 'x'": 'did you mean "name"',
}
HOSTILE = (
    "SELECT name FROM system.tables",
    "SELECT endpoint FROM flow_log.trace_key",
    "SELECT name FROM flow_tag.device_map",
    "SELECT * FROM url('http://127.0.0.1/', CSV)",
    "SELECT * FROM file('/etc/passwd')",
    "SELECT endpoint FROM (SELECT 1)",
    "SELECT (SELECT 1) FROM l7_flow_log",
    "SELECT endpoint FROM l7_flow_log WHERE endpoint IN (SELECT name FROM system.tables)",
    "SELECT endpoint FROM l7_flow_log WHERE EXISTS (SELECT 1)",
    "SELECT endpoint FROM l7_flow_log; DROP TABLE flow_log.l7_flow_log",
    "SELECT endpoint FROM l7_flow_log -- WHERE x",
    "SELECT endpoint FROM l7_flow_log /* hidden */ WHERE 1 = 1",
    "SELECT /*! 1 */ endpoint FROM l7_flow_log # x",
    "SELECT endpoint FROM l7_flow_log SETTINGS readonly = 0",
    "SELECT endpoint FROM l7_flow_log FORMAT CSV",
    "SELECT endpoint FROM l7_flow_log INTO OUTFILE '/tmp/x'",
    "SELECT endpoint FROM l7_flow_log UNION ALL SELECT 1",
    "WITH a AS (SELECT 1) SELECT endpoint FROM l7_flow_log",
    "SELECT endpoint FROM l7_flow_log, application",
    "SELECT endpoint FROM l7_flow_log JOIN application ON 1 = 1",
    "SELECT endpoint FROM l7_flow_log AS x",
    "SELECT endpoint FROM l7_flow_log FINAL",
    "SELECT dictGet('flow_tag.device_map', 'name', 1) FROM l7_flow_log",
    "SELECT sleep(3) FROM l7_flow_log",
    "SELECT getSetting('readonly') FROM l7_flow_log WHERE sleep(3) = 0",
    "SELECT Sum(sleep(1)) FROM l7_flow_log",
    "SELECT Sum(request) OVER () FROM l7_flow_log",
    "SELECT CASE WHEN 1 = 1 THEN file('/etc/passwd') END FROM l7_flow_log",
    "SELECT endpoint::Int8 FROM l7_flow_log",
    "SELECT @@version, endpoint FROM l7_flow_log",
    "SELECT _batch FROM l7_flow_log",
    "INSERT INTO flow_log.l7_flow_log VALUES (1)",
    "DROP TABLE l7_flow_log",
    "SYSTEM RELOAD DICTIONARIES",
    "SET readonly = 0",
    "SHOW tag endpoint values FROM l7_flow_log WHERE endpoint IN (SELECT 1)",
    "SHOW tag host values FROM l7_flow_log WHERE file('/etc/passwd') = 'x'",
    "SHOW tables FROM system; SELECT 1",
    "SHOW CREATE TABLE flow_log.l7_flow_log",
    "SELECT " + "(" * 5000 + "endpoint" + ")" * 5000 + " FROM l7_flow_log",
    "SELECT " + "-" * 3 + " 1 FROM l7_flow_log",
    "SELECT endpoint FROM l7_flow_log WHERE " + "NOT " * 8000 + "1 = 1",
    "SELECT endpoint FROM l7_flow_log WHERE endpoint = '" + "x" * 40_000 + "'",
    "SELECT endpoint FROM l7_flow_log WHERE server_port IN (" + ",".join(["1"] * 2000) + ")",
    "SELECT endpoint FROM l7_flow_log WHERE server_port = " + "9" * 5000,
    "SELECT endpoint FROM l7_flow_log LIMIT 1e999",
)  # fmt: skip
QUOTES = (
    "it's",
    "\\",
    "\\'",
    "' OR '1'='1",
    "a\nb",
    "`x`",
    '"',
    "''",
    "{x:String}",
    "%s",
    "\\' OR 1=1 -- ",
    "中\0文",
    "?",
)


@pytest.mark.parametrize("sql", SENTENCES)
def test_a_mistake_gets_one_sentence(schema: Schema, sql: str) -> None:
    with pytest.raises(QueryError) as caught:
        translate(schema, sql, "")
    sentence = str(caught.value)
    assert any(part in sentence for part in SENTENCES[sql].split("|")), sentence
    assert sentence and "\n" not in sentence and len(sentence) < 400


@pytest.mark.parametrize("sql", HOSTILE, ids=lambda sql: sql[:60])
def test_nothing_past_the_catalogue_is_reached(schema: Schema, sql: str) -> None:
    with pytest.raises(QueryError) as caught:
        translate(schema, sql, "")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("db", ["system", "flow_tag", "information_schema", "default", "x'y"])
def test_unknown_databases_are_refused(schema: Schema, db: str) -> None:
    with pytest.raises(QueryError, match="Unknown database"):
        translate(schema, "SELECT endpoint FROM l7_flow_log", db)


@pytest.mark.parametrize("value", QUOTES)
def test_strings_stay_strings(ask: Ask, value: str) -> None:
    written = value.replace("\\", "\\\\").replace("'", "\\'")
    assert ask.one(f"SELECT Count(row) FROM l7_flow_log WHERE endpoint = '{written}'") == 0
    assert (
        ask.one(
            f"SELECT Count(row) FROM l7_flow_log WHERE auto_service_1 = '{written}' OR `attribute.{value.replace('`', '``')}` = 'x'"
        )
        == 0
    )
    alias = value.replace("`", "``")
    answer = ask(f"SELECT newTag('{written}') AS `{alias}`, endpoint FROM l7_flow_log LIMIT 1")
    assert answer.columns[0] == value and answer.values[0][0] == value


def test_a_bad_pattern_is_the_readers_mistake(ask: Ask) -> None:
    for _ in range(3):
        with pytest.raises(QueryError, match="regular expression"):
            ask("SELECT endpoint FROM l7_flow_log WHERE endpoint REGEXP '('")
        # What the failed query had written must not stand in front of the next answer.
        assert ask.one("SELECT Count(row) FROM l7_flow_log") == 4000


def test_limits_of_a_query_do_not_outlive_it(ask: Ask) -> None:
    ask("SELECT Count(row) FROM l7_flow_log")
    kept = ask.store.query(
        "SELECT toUInt64(getSetting('readonly')) AS r, toFloat64(getSetting('max_execution_time')) AS t"
    ).to_pylist()
    assert kept == [{"r": 0, "t": 0.0}]
    ask.store.command("CREATE TABLE IF NOT EXISTS flow_log.after_a_query (a UInt8) ENGINE = Memory")
    ask.store.command("DROP TABLE flow_log.after_a_query")


WORDS = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "HAVING", "ORDER BY", "LIMIT", "OFFSET", "SLIMIT", "AND", "OR", "NOT", "IN", "LIKE", "REGEXP", "AS",
    "SHOW", "tags", "tag", "values", "metrics", "functions", "enum", "from", "(", ")", "(", ")", ",", "*", "=", "!=", "<", ">=", "+", "-", "/",
    ".", "`", "'", '"', "\\", ";", "--", "0", "1", "60", "1.5", "'x'", "`a.b`", "l7_flow_log", "application", "endpoint", "request", "rrt",
    "auto_service_0", "auto_service", "time", "time(time, 60)", "Sum(request)", "Max(response_duration)", "Percentile(", "TopK(", "Enum(",
    "exist(", "ip_0", "mask(", "attribute.x", "NULL", "true", "BETWEEN", "IS", "CASE", "UNION", "INTERVAL", "@x", "?", ":x", "::", "{", "}",
    "[", "]", "0x1", "中", "\0", "desc",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_random_words_are_answered_or_refused(schema: Schema, seed: int) -> None:
    chance = random.Random(seed)
    starts = (
        "",
        "SELECT ",
        "SELECT endpoint FROM l7_flow_log ",
        "SELECT Sum(request) FROM application WHERE ",
        "SHOW ",
        "SHOW tag endpoint values ",
    )
    refused = 0
    for _ in range(150):
        sql = chance.choice(starts) + " ".join(chance.choices(WORDS, k=chance.randint(1, 14)))
        try:
            translated = translate(schema, sql, chance.choice(["", "flow_log", "flow_metrics"]))
        except QueryError as error:
            refused += 1
            assert str(error)
        else:
            assert "system." not in translated and "INSERT" not in translated
    assert refused > 0
