#!/bin/sh
# Move to another warehouse, and scale the receiver.
. "$(dirname "$0")/lib.sh"

start_vendors 0
systemctl start ingest.target
await "events are loaded" has_events 30
runbook to-warehouse-stop
printf '\n' >>"$CONFIG"
sed -i 's|^\[warehouse\]|[warehouse]\ncredentials = "data/another.duckdb"|' "$CONFIG"
grep -q another.duckdb "$CONFIG" || fail "the settings have no [warehouse]"
runbook to-warehouse-start

sed -i 's|^workers = .*|workers = 2|' "$CONFIG"
grep -q '^workers = 2' "$CONFIG" || fail "the settings have no receiver.workers"
runbook scale-workers
before=$(number "select count(*) from booking_events")
await "more events are loaded" has_events $((before + 20))
stop_vendors
every_accepted_webhook_is_loaded
echo DONE
