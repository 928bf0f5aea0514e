-- flow_metrics 1m
SELECT time(time, 1, 1, 0) AS toi, PerSecond(Avg(request)) AS rps FROM vtap_app_port WHERE time >= 1705040184 AND time <= 1705045184 GROUP BY toi ORDER BY toi DESC SLIMIT 5
-- becomes
SELECT "_time" AS "toi", divide(divide("_m0", nullIf(1, 0)), nullIf(60, 0)) AS "rps" FROM (SELECT intDiv(toUnixTimestamp("time"), 60) * 60 AS "_time", sum("request") AS "_m0" FROM "flow_metrics"."application.1m" WHERE "time" >= 1705040184 AND "time" <= 1705045184 GROUP BY "_time") ORDER BY "_time" DESC LIMIT 10000
