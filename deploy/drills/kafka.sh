#!/bin/sh
# Move from the embedded log to Kafka. $KAFKA: brokers, as kafka://127.0.0.1:9092.
. "$(dirname "$0")/lib.sh"

start_vendors 0
systemctl start ingest.target
await "events are loaded" has_events 30
runbook to-kafka-stop
{ echo "log = \"$KAFKA\""; cat "$CONFIG"; } >"$CONFIG.new"
mv "$CONFIG.new" "$CONFIG"
runbook to-kafka-start
before=$(number "select count(*) from booking_events")
await "more events are loaded" has_events $((before + 20))
stop_vendors
every_accepted_webhook_is_loaded
echo DONE
