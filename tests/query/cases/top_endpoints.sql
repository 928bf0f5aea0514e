-- flow_log
SELECT TopK(endpoint, 5) AS top FROM l7_flow_log
-- becomes
SELECT arrayMap("entry" -> toString(tupleElement(tupleElement("entry", 1), 1)), "_m0") AS "top", arrayMap("entry" -> tupleElement("entry", 2), "_m0") AS "counts_top" FROM (SELECT topKIf(5, 3, 'counts')(tuple("endpoint"), notEquals("endpoint", '')) AS "_m0" FROM "flow_log"."l7_flow_log") LIMIT 10000
