-- deepflow_system
SELECT time(time, 10) AS toi, agent, Sum(metrics.rx) AS rx FROM deepflow_agent_capture WHERE tag.cpu = '0' GROUP BY toi, agent
-- becomes
SELECT "_time" AS "toi", dictGet('flow_tag.vtap_map', 'name', toUInt64("_k0")) AS "agent", "_m0" AS "rx" FROM (SELECT "agent_id" AS "_k0", intDiv(toUnixTimestamp("time"), 10) * 10 AS "_time", sum(if(indexOf("metrics_float_names", 'rx') = 0, NULL, "metrics_float_values"[indexOf("metrics_float_names", 'rx')])) AS "_m0" FROM "deepflow_system"."deepflow_system" WHERE "virtual_table_name" = 'deepflow_agent_capture' AND "tag_values"[indexOf("tag_names", 'cpu')] = '0' GROUP BY "_k0", "_time") ORDER BY "_time" ASC LIMIT 10000
