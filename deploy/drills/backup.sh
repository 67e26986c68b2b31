#!/bin/sh
# Back up a product that runs, lose each part of its state, and restore it.
. "$(dirname "$0")/lib.sh"

start_vendors 0
systemctl start ingest.target
await "events are loaded" has_events 30
await "the first reconciliation" test -d "$DATA/reconcile"
runbook backup
before=$(number "select count(*) from booking_events")
await "more events are loaded" has_events $((before + 30))

runbook restore-warehouse
runbook restore-state
await "what the older warehouse lacks is loaded again" has_events $((before + 30))

runbook restore-log
runbook after-restore
nothing_is_missing
stop_vendors
await "everything is loaded" nothing_waits
rows=$(number "select count(*) from booking_events where via <> 'reconcile'")
[ "$rows" = "$(number "select count(distinct id) from booking_events where via <> 'reconcile'")" ] || fail "doubles"
echo DONE
