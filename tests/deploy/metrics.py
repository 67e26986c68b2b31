"""The metrics of the product, as queries to Prometheus name them."""

import re
from collections.abc import Collection

from prometheus_client.metrics import MetricWrapperBase

from ingest import telemetry

METRICS: list[MetricWrapperBase] = [
    metric for metric in vars(telemetry).values() if isinstance(metric, MetricWrapperBase)
]


def name_of(metric: MetricWrapperBase) -> str:
    """Return the name of a metric, which for a counter ends in `_total`."""
    [family] = metric.describe()
    return f"{family.name}_total" if family.type == "counter" else family.name


def labels_of_metrics() -> dict[str, set[str]]:
    """Return the labels of each name that can be in a query."""
    labels: dict[str, set[str]] = {}
    for metric in METRICS:
        [family] = metric.describe()
        suffixes = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
        labels |= {f"{name_of(metric)}{suffix}": set(metric._labelnames) for suffix in suffixes}
    return labels


def metrics_in(query: str, names: Collection[str]) -> dict[str, set[str]]:
    """Return the metrics in a query, each with the labels that select it and those of all groupings."""
    grouped = {
        label for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for label in labels.split(", ")
    }
    found: dict[str, set[str]] = {}
    for name, selected in re.findall(r"([\w:]+)(?:\{([^}]*)\})?", query):
        if name in names:
            found.setdefault(name, set()).update(re.findall(r"(\w+)[=!~]+\"", selected), grouped)
    return found
