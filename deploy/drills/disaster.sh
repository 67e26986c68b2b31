#!/bin/sh
# Lose everything but settings and secrets, and get every booking back from the vendors.
. "$(dirname "$0")/lib.sh"

start_vendors 0
systemctl start ingest.target
await "events are loaded" has_events 40
for part in receive consume reconcile; do kill -KILL "$(pid_of $part)"; eval "pid_$part="; done
rm -rf "$DATA"

runbook disaster
nothing_is_missing
echo DONE
