#!/bin/sh
# Writes the secrets of compose.yaml into deploy/secrets/: random ones, and those that are there already stay.
set -eu
folder="$(dirname "$0")/secrets"
mkdir -p "$folder"
chmod 700 "$folder" # nobody else gets at the files, which the containers' users must be able to read

make() { # make NAME TEXT
    [ -e "$folder/$1" ] || { printf '%s' "$2" >"$folder/$1" && echo "made $folder/$1"; }
    chmod 444 "$folder/$1"
}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

make postgres-password "$(random)"
make INGEST_WAREHOUSE__CREDENTIALS "postgresql://ingest:$(cat "$folder/postgres-password")@postgres/ingest"
for section in RECEIVER CONSUMER RECONCILE; do make "INGEST_${section}__ADMIN_TOKEN" "$(random)"; done
make INGEST_DASHBOARD__TOKEN "$(random)"
make grafana-password "$(random)"
make INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS "$(random)" # give it to the vendor, or put the vendor's here
