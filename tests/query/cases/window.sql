-- flow_log
SELECT time(time, 60, 5) AS toi, Count(row) AS c FROM l7_flow_log GROUP BY toi
-- becomes
SELECT "_time" AS "toi", "_m0" AS "c" FROM (SELECT intDiv(toUnixTimestamp("time"), 60) * 60 + arrayJoin(range(5)) * 60 AS "_time", count() AS "_m0" FROM "flow_log"."l7_flow_log" GROUP BY "_time") ORDER BY "_time" ASC LIMIT 10000
