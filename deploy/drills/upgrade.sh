#!/bin/sh
# Upgrade and roll back over the same data while webhooks arrive.
# $OLD_WHEEL, $WHEEL: wheels of two versions. $VENV: a virtual environment with the libraries that both need.
. "$(dirname "$0")/lib.sh"

start_vendors 0                                       # by the `ingest` that is on the path
PATH=$VENV/bin:$PATH
"$VENV/bin/pip" install --quiet --no-deps --force-reinstall "$OLD_WHEEL"
systemctl start ingest.target
await "events are loaded" has_events 30

runbook upgrade
before=$(number "select count(*) from booking_events")
await "the new version loads" has_events $((before + 20))

runbook rollback
before=$(number "select count(*) from booking_events")
await "the version before loads" has_events $((before + 20))

nothing_is_missing
stop_vendors
every_accepted_webhook_is_loaded
echo DONE
