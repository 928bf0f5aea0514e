-- flow_metrics
SELECT time(time, 120) AS toi, PerSecond(Sum(request)) AS rps FROM application GROUP BY toi
-- becomes
SELECT "_time" AS "toi", divide("_m0", nullIf(120, 0)) AS "rps" FROM (SELECT intDiv(toUnixTimestamp("time"), 120) * 120 AS "_time", sum("request") AS "_m0" FROM "flow_metrics"."application.1m" GROUP BY "_time") ORDER BY "_time" ASC LIMIT 10000
