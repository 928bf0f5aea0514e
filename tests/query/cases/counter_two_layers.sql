-- flow_metrics
SELECT time(time, 30) AS toi, Max(request) AS m, Avg(rrt) AS r FROM application GROUP BY toi
-- becomes
SELECT "_time" AS "toi", "_m0" AS "m", divide("_m1", nullIf("_m2", 0)) AS "r" FROM (SELECT intDiv(toUnixTimestamp("_slot"), 30) * 30 AS "_time", max("_s0") AS "_m0", sumMerge("_a1") AS "_m1", sumMerge("_a2") AS "_m2" FROM (SELECT "time" AS "_slot", sum("request") AS "_s0", sumState("rrt_sum") AS "_a1", sumState("rrt_count") AS "_a2" FROM "flow_metrics"."application.1s" GROUP BY "_slot") GROUP BY "_time") ORDER BY "_time" ASC LIMIT 10000
