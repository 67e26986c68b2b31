"""The program that writes the dashboard for Grafana, deploy/monitoring/dashboard.json.

`python -m tests.deploy.dashboard` makes a panel for each metric of ingest/telemetry.py, below a row that sums
up.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from ingest import telemetry
from tests.deploy.metrics import name_of

FILE = Path(__file__).parents[2] / "deploy" / "monitoring" / "dashboard.json"

Panel = dict[str, Any]

OVERVIEW = {
    "Alerts that fire": (
        'count(ALERTS{alertname=~"Ingest.*",alertstate="firing"}) or vector(0)',
        "none",
        "Alerts of rules.yaml.",
    ),
    "Accepted per minute": (
        '60 * sum(rate(ingest_deliveries_total{outcome="accepted"}[$__rate_interval]))',
        "none",
        "Webhook deliveries that were answered 202.",
    ),
    "Freshness, p99": (
        "max(account:ingest_freshness_seconds:p99_10m)",
        "s",
        "From an event's receipt to its row being visible, of the slowest account.",
    ),
    "Not loaded": ("sum(topic:ingest_lag_records:sum)", "none", "Records in the log."),
    "Dead letters, 24 h": ("sum(increase(ingest_dead_letters_total[24h]))", "none", "Records set aside."),
    "Missed, 24 h": (
        "sum(increase(ingest_reconcile_missed_total[24h]))",
        "none",
        "Bookings that reconciliation found missing or older here.",
    ),
    "Oldest reconciliation": (
        "max(account:ingest_reconciled_age:seconds)",
        "s",
        "Since the account that waits longest was last reconciled to the end.",
    ),
    "Least free disk": ("min(ingest_disk_free_bytes)", "bytes", "Of all folders that grow."),
}
ROWS = {
    "Deliveries": (
        telemetry.DELIVERIES,
        telemetry.DELIVERY_SECONDS,
        telemetry.REFUSED_REQUESTS,
        telemetry.SIGNED_BY,
        telemetry.LOSSES,
        telemetry.IN_FLIGHT_BYTES,
    ),
    "Log and spool": (
        telemetry.LAG_RECORDS,
        telemetry.SPOOL_RECORDS,
        telemetry.SPOOL_OLDEST_SECONDS,
        telemetry.SPOOLED,
        telemetry.READ_AGAIN,
        telemetry.DELETED_UNREAD,
    ),
    "Loads": (
        telemetry.EVENTS_LOADED,
        telemetry.FRESHNESS_SECONDS,
        telemetry.LOAD_SECONDS,
        telemetry.LOAD_INTERVAL_SECONDS,
        telemetry.BATCH_RECORDS,
        telemetry.OLDEST_UNDONE_SECONDS,
        telemetry.DEAD_LETTERS,
        telemetry.CHANGES_PUBLISHED,
        telemetry.EVENTS_STALE,
        telemetry.UNKNOWN_STATUS,
        telemetry.EVENTS_IMPLAUSIBLE,
    ),
    "Reconciliation and subscriptions": (
        telemetry.MISSED,
        telemetry.RECONCILIATIONS,
        telemetry.RECONCILED_AT,
        telemetry.SUBSCRIPTION_STATE,
        telemetry.COMPLETE_UNTIL,
        telemetry.PROVEN_UNTIL,
        telemetry.GAPS_OPEN,
        telemetry.GAP_OLDEST_SECONDS,
    ),
    "Machines": (telemetry.DISK_FREE_BYTES, telemetry.CLOCK_SKEW_SECONDS),
}
# Series that begin with an incident; without one the panel shows 0.
_INCIDENTS = (telemetry.READ_AGAIN, telemetry.DELETED_UNREAD)
_COLUMNS, _STAT_WIDTH, _STAT_HEIGHT, _WIDTH, _HEIGHT = 24, 3, 4, 8, 8
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels = list(_placed())
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "title": "bookings-ingest",
        "uid": "bookings-ingest",
        "tags": ["bookings-ingest"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": panels,
    }


def queries() -> dict[str, list[str]]:
    """Return the queries of each panel, by its title."""
    return {
        panel["title"]: [target["expr"] for target in panel["targets"]]
        for panel in dashboard()["panels"]
        if panel["type"] != "row"
    }


def text() -> str:
    """Return what is in the file."""
    return json.dumps(dashboard(), indent=1) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    for name in ("vendor", "account"):
        query = f"label_values(ingest_deliveries_total, {name})"
        yield {
            "name": name,
            "type": "query",
            "datasource": _DATASOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
        }


def _placed() -> Iterator[Panel]:
    """Yield all panels with their places: the stats in one line, then rows of three."""
    for number, (title, (query, unit, description)) in enumerate(OVERVIEW.items()):
        place = {"x": number * _STAT_WIDTH, "y": 0, "w": _STAT_WIDTH, "h": _STAT_HEIGHT}
        yield _panel("stat", title, description, unit, [_target(query)]) | {"gridPos": place}
    y = _STAT_HEIGHT
    for title, metrics in ROWS.items():
        yield {
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
        }
        y += 1
        for number, metric in enumerate(metrics):
            x = number * _WIDTH % _COLUMNS
            place = {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT}
            yield _metric_panel(metric) | {"gridPos": place}
            if x + _WIDTH == _COLUMNS or number == len(metrics) - 1:
                y += _HEIGHT


def _metric_panel(metric: MetricWrapperBase) -> Panel:
    """Return the panel of a metric, which depends on its type, its labels and the unit in its name."""
    [family] = metric.describe()
    name, labels = name_of(metric), metric._labelnames
    per_account = [label for label in labels if label in {"vendor", "account"}]
    selected = ",".join(f'{label}=~"${label}"' for label in per_account)
    selector = f"{{{selected}}}" if selected else ""
    title, unit = name.removeprefix("ingest_").removesuffix("_total").replace("_", " "), _unit(name)
    legend = " ".join(f"{{{{{label}}}}}" for label in labels)
    if family.type == "histogram":
        by = ", ".join([*per_account, "le"])
        rate = f"sum by ({by}) (rate({name}_bucket{selector}[$__rate_interval]))"
        targets = [
            _target(f"histogram_quantile({quantile}, {rate})", f"p{quantile * 100:.0f} {legend}")
            for quantile in (0.5, 0.99)
        ]
    elif family.type == "counter":
        query = f"60 * sum by ({', '.join(labels)}) (rate({name}{selector}[$__rate_interval]))"
        query = query.replace("sum by () ", "sum ")
        targets = [_target(f"{query} or vector(0)" if metric in _INCIDENTS else query, legend)]
        title, unit = f"{title}, per minute", "none"
    elif name.endswith("_timestamp_seconds"):
        labels_text = ", ".join(labels)
        targets = [_target(f"time() - max by ({labels_text}) ({name}{selector})", legend)]
        title = f"{title.removesuffix(' timestamp seconds')}, ago"
    else:
        by = ", ".join(["job", "instance", *labels])
        targets = [_target(f"max by ({by}) ({name}{selector})", f"{{{{job}}}} {legend}")]
    return _panel("timeseries", title, family.documentation, unit, targets)


def _unit(name: str) -> str:
    return "s" if name.endswith("_seconds") else "bytes" if name.endswith("_bytes") else "none"


def _target(query: str, legend: str = "") -> dict[str, Any]:
    return {"datasource": _DATASOURCE, "expr": query, "legendFormat": legend.strip()}


def _panel(kind: str, title: str, description: str, unit: str, targets: list[dict[str, Any]]) -> Panel:
    for letter, target in zip("ABCDEFGH", targets, strict=False):
        target["refId"] = letter
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": targets,
    }


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
