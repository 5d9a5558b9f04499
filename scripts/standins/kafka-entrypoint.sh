#!/bin/sh
# Turn each variable KAFKA_X_Y into the property x.y, format the storage at the first start, and run the broker.
set -eu
file=/tmp/server.properties
env | sed -n 's/^KAFKA_//p' | while IFS='=' read -r name value; do
    printf '%s=%s\n' "$(printf '%s' "$name" | tr 'A-Z_' 'a-z.')" "$value"
done > "$file"
run() { java -Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '/opt/kafka/libs/*' "$@"; }
[ -f "$KAFKA_LOG_DIRS/meta.properties" ] || run kafka.tools.StorageTool format -t "$CLUSTER_ID" -c "$file"
exec java -Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '/opt/kafka/libs/*' kafka.Kafka "$file"
