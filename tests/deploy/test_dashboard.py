"""Grafana's dashboard: made from the metrics, and no panel without data at a running product."""

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
import yaml

from tests.deploy.dashboard import FILE, OVERVIEW, ROWS, dashboard, queries, text
from tests.deploy.metrics import METRICS, labels_of_metrics, metrics_in
from tests.deploy.test_rules import ALERTS, MONITORING
from tests.support.polling import PATIENCE, is_healthy, wait_for
from tests.support.ports import free_port
from tests.support.processes import COMMAND, IngestProcess, environment, start_ingest

PROMETHEUS = shutil.which("prometheus")


def test_the_file_is_what_the_program_makes_of_the_metrics() -> None:
    assert FILE.read_text() == text(), "run `make docs`"


def test_every_metric_has_one_panel() -> None:
    shown = [metric._name for metrics in ROWS.values() for metric in metrics]
    assert sorted(shown) == sorted(metric._name for metric in METRICS)


def test_panels_have_numbers_and_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)


def test_queries_use_labels_that_their_metrics_have() -> None:
    labels = labels_of_metrics()
    for title, expressions in queries().items():
        for expression in expressions:
            metrics = metrics_in(expression, labels)
            assert metrics or title in OVERVIEW
            for metric, used in metrics.items():
                assert used <= labels[metric] | {"job", "instance", "le"}, expression


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Run simulated vendors, the product and Prometheus, and return a client of Prometheus."""
    if not PROMETHEUS:
        pytest.skip("prometheus is not installed")
    folder = tmp_path_factory.mktemp("monitored")
    with ExitStack() as running:
        running.enter_context(start_ingest(folder, "simulate", "--rate", "3", "--folder", "site"))
        config = folder / "site" / "ingest.toml"
        wait_for(config.with_name("ingest.secrets.toml").exists, "the settings are written")
        config.write_text(config.read_text().replace("[reconcile]\n", '[reconcile]\njitter = "0s"\n'))
        settings = tomllib.loads(config.read_text())
        command = [*COMMAND, "up", "--config", str(config)]
        running.enter_context(IngestProcess(folder, "up", command, environment()))
        wait_for(lambda: is_healthy(settings["public_url"]), "the receiver answers")
        httpx.get(f"{settings['public_url']}/webhooks/nobody/none")
        ports = [settings[section]["admin_port"] for section in ("receiver", "consumer", "reconcile")]
        (folder / "prometheus.yaml").write_text(_prometheus_settings(ports))
        port = free_port()
        command = [
            PROMETHEUS,
            "--config.file=prometheus.yaml",
            f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.path=tsdb",
        ]
        running.enter_context(IngestProcess(folder, "prometheus", command, environment()))
        client = running.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE))
        wait_for(lambda: _is_ready(client), "Prometheus is ready")
        yield client


def _prometheus_settings(ports: list[int]) -> str:
    """Return the settings of deploy/monitoring, with the ports of a test, and quicker."""
    settings = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    settings["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(MONITORING / "rules.yaml")]
    for job, port in zip(settings["scrape_configs"], ports, strict=True):
        job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    return json.dumps(settings)  # which is YAML


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").is_success
    except httpx.TransportError:
        return False


def _result(client: httpx.Client, query: str) -> list[object]:
    query = re.sub(r"\$(vendor|account)", ".*", query).replace("$__rate_interval", "1m")
    answer = client.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    result: list[object] = answer["data"]["result"]
    return result


def test_every_panel_has_data_at_a_running_product(prometheus: httpx.Client) -> None:
    expressions = [expression for targets in queries().values() for expression in targets]

    def missing() -> list[str]:
        return [expression for expression in expressions if not _result(prometheus, expression)]

    try:
        wait_for(lambda: not missing(), "every panel has data")
    except AssertionError as error:
        raise AssertionError(f"panels without data: {missing()}") from error


def test_nothing_fires_at_a_product_that_runs_as_it_should(prometheus: httpx.Client) -> None:
    answer = prometheus.get("/api/v1/rules").json()
    rules = {rule["name"]: rule for group in answer["data"]["groups"] for rule in group["rules"]}
    assert ALERTS.keys() <= rules.keys()
    assert {name: rule["lastError"] for name, rule in rules.items() if rule.get("lastError")} == {}
    # The simulated vendors lose webhooks, which reconciliation then finds, and whose hours it proves later.
    # They have no subscriptions.
    expected = {"IngestMissed", "IngestNotProven", "IngestSubscriptionOff"}
    assert {name for name in ALERTS if rules[name]["alerts"]} <= expected
