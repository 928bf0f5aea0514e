-- flow_log
SELECT time, agent, request_resource FROM l7_flow_log WHERE response_status IN ('Server Error', 4) ORDER BY time DESC LIMIT 50 OFFSET 100
-- becomes
SELECT toUnixTimestamp("_k0") AS "time", dictGet('flow_tag.vtap_map', 'name', toUInt64("_k1")) AS "agent", "_k2" AS "request_resource" FROM (SELECT "time" AS "_k0", "agent_id" AS "_k1", "request_resource" AS "_k2" FROM "flow_log"."l7_flow_log" WHERE ("response_status" IN (3) OR "response_status" = 4) ORDER BY "_k0" DESC LIMIT 50 OFFSET 100) ORDER BY toUnixTimestamp("_k0") DESC
