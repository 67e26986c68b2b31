# Functions of the drills: a demo of its own, the blocks of RUNBOOK.md, and what must be true afterwards.
#
# A drill sources this file. It needs `ingest`, curl and sqlite3, and leaves nothing behind.
set -eu

DRILLS=$(cd "$(dirname "$0")" && pwd)
RUNBOOK=$DRILLS/../RUNBOOK.md
WORK=$(mktemp -d)
DATA=$WORK/site/data BACKUP=$WORK/backup ACCOUNT=calendly
CONFIG=$WORK/site/ingest.toml
cd "$WORK"

fail() {
    echo "FAILED: $*" >&2
    tail -n 20 "$WORK"/*.log >&2 || true
    exit 1
}

# Run a block of the runbook as it is written there, and stop at the first command that fails. `status` and `reconcile`
# may find something, which is exit code 1.
runbook() {
    block "$1" >"$WORK/block"
    while read -r command; do
        echo "$1: $command"
        code=0
        eval "$command" </dev/null || code=$?
        case $code,$command in
        0,* | "1,ingest status"* | "1,ingest reconcile"*) ;;
        *) fail "$1: $command: exit code $code" ;;
        esac
    done <"$WORK/block"
}

# Run a command that only looks at things. It may find something wrong, but must be right itself.
consult() {
    echo "== $1"
    eval "$1" </dev/null >out 2>err || true
    cat out
    ! grep -E '^error:|Traceback|not found|cannot access' err || fail "$1"
}

# Print the commands of a block.
block() {
    commands=$(awk -v mark="<!-- run: $1 -->" '
        $0 == "```" { inside = 0 }
        inside { print }
        $0 == mark { found = 1 }
        found && $0 == "```sh" { inside = 1; found = 0 }' "$RUNBOOK")
    [ -n "$commands" ] || fail "RUNBOOK.md has no block $1"
    echo "$commands"
}

# Simulated vendors that make bookings until they are stopped. $1: the share of webhooks that they lose.
start_vendors() {
    env -u INGEST_CONFIG --default-signal=INT ingest simulate --rate 10 --lose "$1" --folder site 2>vendors.log &
    vendors=$!
    await "the settings of the demo" test -s site/ingest.secrets.toml
    # The usual places, in the folder of the settings; and reconciliation begins at once.
    # The dashboard is not among the units, and unknown to older versions.
    sed -i -E '/^\[(dashboard|feed)\]/,/^$/d; /^(log|spool_dir|credentials|work_dir|state_dir) = /d; s/^\[reconcile\]/&\njitter = "0s"/
        s/^lag = .*/lag = "5s"/' "$CONFIG"
    export INGEST_CONFIG="$CONFIG"
    url=$(sed -n 's/^public_url = "\(.*\)"/\1/p' "$CONFIG")
}

stop_vendors() {
    kill -INT "$vendors"
    wait "$vendors" || true
    vendors=
    accepted=$(sed -n 's/.*webhooks accepted: \([0-9]*\).*/\1/p' vendors.log | tail -n 1)
    cat vendors.log | tail -n 1
}

# What systemctl does with the units of deploy/systemd.
systemctl() {
    case $2 in
    ingest.target) units="ingest-receive ingest-consume ingest-reconcile" ;;
    *)
        units=
        for argument in "$@"; do units="$units $argument"; done
        units=${units#* "$1"}
        ;;
    esac
    for unit in $units; do
        case $1 in
        start) start_part "${unit#ingest-}" ;;
        stop) stop_part "${unit#ingest-}" ;;
        restart) stop_part "${unit#ingest-}" && start_part "${unit#ingest-}" ;;
        esac
    done
}

start_part() {
    [ -z "$(pid_of "$1")" ] || return 0
    case $1 in
    reconcile) ingest reconcile --watch 2>"$1.log" & ;;
    *) ingest "$1" 2>"$1.log" & ;;
    esac
    eval "pid_$1=$!"
    case $1 in
    receive) await "the receiver" curl --fail --silent --output /dev/null "$url/healthz" ;;
    consume) await "the consumer" grep -q consumer.started consume.log ;;
    esac
}

stop_part() {
    pid=$(pid_of "$1")
    [ -n "$pid" ] || return 0
    kill -TERM "$pid"
    ended=0
    wait "$pid" || ended=$?
    # 143: the signal came before the process was ready for it.
    [ $ended = 0 ] || [ $ended = 143 ] || fail "$1 stopped with exit code $ended"
    eval "pid_$1="
}

pid_of() {
    eval "echo \${pid_$1:-}"
}

await() {
    what=$1
    shift
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "not within a minute: $what"
        sleep 0.2
    done
}

# One number from the warehouse.
number() {
    ingest query --json "$1" | tr -dc 0-9
}

has_events() {
    [ "$(number "select count(*) from booking_events" 2>/dev/null || echo 0)" -ge "$1" ]
}

# Every accepted webhook is one row of booking_events, once all is loaded. Those that were under way when the vendors
# were stopped are loaded too, and not counted by the vendors.
every_accepted_webhook_is_loaded() {
    await "as many events are loaded as webhooks were accepted" has_loaded_what_was_accepted
    await "everything is loaded" nothing_waits
    rows=$(number "select count(*) from booking_events where via <> 'reconcile'")
    ids=$(number "select count(distinct id) from booking_events where via <> 'reconcile'")
    echo "accepted $accepted, loaded $rows"
    [ "$ids" = "$rows" ] || fail "$rows rows of $ids events"
    [ "$rows" -ge "$accepted" ] && [ "$rows" -le $((accepted + 20)) ] || fail "accepted $accepted, loaded $rows"
}

has_loaded_what_was_accepted() {
    [ "$(number "select count(*) from booking_events where via <> 'reconcile'")" -ge "$accepted" ]
}

nothing_waits() {
    # By fields that older versions have too; without any of the first kind the log could not be asked.
    ingest status --json >status.json || true # it may have something else to say
    grep -Eq '"lag": *0' status.json && ! grep -Eq '"(lag|records)": *[1-9]' status.json
}

# The warehouse has what the vendors have, but for the last seconds.
nothing_is_missing() {
    await "reconciliation misses nothing" reconciliation_misses_nothing
}

reconciliation_misses_nothing() {
    ingest reconcile --since 31d --dry-run --json >"$WORK/report.json" && ! grep -Eq '"missed": *[1-9]' "$WORK/report.json"
}

cleanup() {
    code=$?
    trap - EXIT
    for part in receive consume reconcile; do
        pid=$(pid_of $part)
        # Workers go with a parent that is asked to stop; they would write on for a moment after one that is killed.
        [ -z "$pid" ] || { kill -TERM "$pid" && wait "$pid"; } 2>/dev/null || true
    done
    [ -z "${vendors:-}" ] || kill -KILL "$vendors" 2>/dev/null || true
    cd /
    rm -rf "$WORK"
    exit $code
}
trap cleanup EXIT
trap 'exit 1' INT TERM
