-- flow_metrics
SELECT Sum(request) AS s, Avg(request) AS a FROM application WHERE time >= 60 AND time <= 180
-- becomes
SELECT "_m0" AS "s", divide("_m0", nullIf(121, 0)) AS "a" FROM (SELECT sum("request") AS "_m0" FROM "flow_metrics"."application.1s" WHERE "time" >= 60 AND "time" <= 180) LIMIT 10000
