-- flow_log
SHOW tag auto_service_1 values FROM l7_flow_log WHERE display_name LIKE '*shop*' LIMIT 10
-- becomes
SELECT "deviceid" AS "value", "name" AS "display_name" FROM "flow_tag"."device_map" WHERE "devicetype" IN (1, 5, 6, 9, 11, 12, 13, 14, 15, 16, 101, 102, 103, 104, 105, 120, 130, 131, 132, 133, 134, 135) AND "name" ILIKE '%shop%' ORDER BY "value" LIMIT 10 OFFSET 0
