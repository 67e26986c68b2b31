#!/bin/sh
# The commands of all alerts, each once, at a product that runs.
. "$(dirname "$0")/lib.sh"

start_vendors 0.1
systemctl start ingest.target
await "events are loaded" has_events 20
for alert in $(sed -n 's/^### \(Ingest[A-Za-z]*\)$/\1/p' "$RUNBOOK" | tr '[:upper:]' '[:lower:]'); do
    block "$alert" >>commands
done
sort -u commands >commands.once
while read -r command; do
    consult "$command"
done <commands.once
echo DONE
