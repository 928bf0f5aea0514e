-- flow_log
SELECT agent FROM l7_flow_log ORDER BY agent LIMIT 5
-- becomes
SELECT dictGet('flow_tag.vtap_map', 'name', toUInt64("_k0")) AS "agent" FROM (SELECT "agent_id" AS "_k0" FROM "flow_log"."l7_flow_log") ORDER BY dictGet('flow_tag.vtap_map', 'name', toUInt64("_k0")) ASC LIMIT 5
