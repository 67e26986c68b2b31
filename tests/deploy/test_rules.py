"""The rules for Prometheus: promtool accepts them, each alert is shown to fire and to stay silent."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.files import FULL_BYTES, LOW_BYTES
from tests.deploy.metrics import labels_of_metrics, metrics_in

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
TESTS = ("rules_test.yaml", "rhythm_test.yaml")
PROMTOOL = shutil.which("promtool")
with_promtool = pytest.mark.skipif(not PROMTOOL, reason="promtool (Debian's package prometheus) is missing")


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in _rules() if "alert" in rule}


def promtool(*arguments: str) -> str:
    """Run promtool in the folder of the rules, and return what it prints. Fails when it finds a mistake."""
    assert PROMTOOL
    command = [PROMTOOL, *arguments]
    result = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@with_promtool
def test_promtool_accepts_the_rules_and_the_settings_of_prometheus() -> None:
    assert f"{len(_rules())} rules found" in promtool("check", "rules", "rules.yaml")
    promtool("check", "config", "prometheus.yaml")


@with_promtool
@pytest.mark.parametrize("file", TESTS)
def test_alerts_fire_and_stay_silent_as_their_tests_say(file: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", file)


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires: dict[str, set[bool]] = {}
    for file in TESTS:
        for group in yaml.safe_load((MONITORING / file).read_text())["tests"]:
            for check in group["alert_rule_test"]:
                fires.setdefault(check["alertname"], set()).add(bool(check["exp_alerts"]))
    assert fires == {name: {True, False} for name in ALERTS}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    _, _, page = alert["annotations"]["runbook_url"].partition("https://example.com/bookings-ingest/")
    assert page == f"deploy/RUNBOOK.md#{name.lower()}"


def test_rules_use_metrics_and_labels_that_exist() -> None:
    labels = labels_of_metrics()
    recorded = {rule["record"] for rule in _rules() if "record" in rule}
    for rule in _rules():
        for metric, used in metrics_in(rule["expr"], {*labels, *recorded}).items():
            if metric in labels:
                assert used <= labels[metric] | {"job", "instance", "le"}, (metric, used)
        unknown = set(re.findall(r"\b\w*:?ingest_[\w:]+", rule["expr"])) - {*labels, *recorded}
        assert unknown == set()


def test_alerts_on_free_space_and_the_status_command_have_the_same_limits() -> None:
    limits = {name: ALERTS[name]["expr"].rpartition("< ")[2] for name in ("IngestDiskLow", "IngestDiskFull")}
    assert limits == {"IngestDiskLow": str(LOW_BYTES), "IngestDiskFull": str(FULL_BYTES)}
