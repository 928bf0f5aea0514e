-- flow_log
SELECT endpoint, Sum(error)/Sum(request) AS share FROM l7_flow_log GROUP BY endpoint HAVING Sum(request) > 10 AND share >= 0.5
-- becomes
SELECT "_k0" AS "endpoint", divide("_m0", nullIf("_m1", 0)) AS "share" FROM (SELECT "endpoint" AS "_k0", sum(CASE WHEN response_status IN (3, 4) THEN 1 ELSE 0 END) AS "_m0", sum(CASE WHEN type IN (0, 2) THEN 1 ELSE 0 END) AS "_m1" FROM "flow_log"."l7_flow_log" GROUP BY "_k0") WHERE "_m1" > 10 AND divide("_m0", nullIf("_m1", 0)) >= 0.5 LIMIT 10000
