-- flow_metrics
SELECT Min(request) AS m FROM application WHERE time >= 60 AND time <= 180
-- becomes
SELECT if("_m1" < 121, 0, "_m0") AS "m" FROM (SELECT min("_s0") AS "_m0", count() AS "_m1" FROM (SELECT "time" AS "_slot", sum("request") AS "_s0" FROM "flow_metrics"."application.1s" WHERE "time" >= 60 AND "time" <= 180 GROUP BY "_slot")) LIMIT 10000
