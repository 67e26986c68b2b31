"""The chart, rendered by helm and held against the schemas of Kubernetes and of the custom resources."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import ingest
from ingest.settings import Settings
from tests.deploy.roles import SECTIONS, settings_with
from tests.deploy.tools import crd_schemas, helm, python_tool
from tests.receivers.requests import SECRET

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "bookings-ingest"
RULES = CHART.parents[1] / "monitoring" / "rules.yaml"
EVERYTHING = {
    "receive": {"autoscaling": {"enabled": True}},
    "consume": {"keda": {"enabled": True}},
    "dashboard": {"enabled": True, "hosts": ["bookings.example.com"]},
    "ingress": {"enabled": True, "className": "nginx", "tlsSecretName": "hooks"},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["hooks.example.com"]},
    "monitoring": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
    "secret": {"values": {"INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": SECRET}},
}
VALUES = ["values", "small", "large", "openshift", "everything"]
CUSTOM = {
    "HTTPRoute": "gateway-api/gateway.networking.k8s.io/v1/HTTPRoute",
    "ScaledObject": "keda/keda.sh/v1alpha1/ScaledObject",
    "ServiceMonitor": "prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
    "PrometheusRule": "prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
}
PODS = ("StatefulSet", "Deployment", "Pod")

Named = dict[tuple[str, str], dict[str, Any]]


def values_of(name: str, folder: Path) -> list[str]:
    """Return the options of helm for one of the values files, or for all that the chart can make."""
    if name == "values":
        return []
    if name == "everything":
        (folder / "values.yaml").write_text(yaml.safe_dump(EVERYTHING))
        return ["--values", str(folder / "values.yaml")]
    return ["--values", str(CHART / "values" / f"{name}.yaml")]


def render(*options: str) -> list[dict[str, Any]]:
    """Return the objects that helm makes of the chart; it must not warn."""
    done = subprocess.run(
        [str(helm()), "template", "x", str(CHART), *options], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def pod_spec(document: dict[str, Any]) -> Any:
    """Return the spec of the pods of a workload."""
    return document["spec"] if document["kind"] == "Pod" else document["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    command = [str(helm()), "lint", "--strict", "--quiet", str(CHART), *values_of(name, tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "")


@pytest.mark.parametrize("name", VALUES)
def test_kubernetes_takes_every_object(name: str, tmp_path: Path) -> None:
    documents = render(*values_of(name, tmp_path))
    usual = [document for document in documents if document["kind"] not in CUSTOM]
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(usual))
    command = [str(python_tool("kubernetes-validate")), "--strict", "-k", "1.35.0"]
    command.append(str(tmp_path / "objects.yaml"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") + done.stderr.count("passed") == len(usual)


def test_the_operators_take_their_resources(tmp_path: Path) -> None:
    documents = [
        document for document in render(*values_of("everything", tmp_path)) if document["kind"] in CUSTOM
    ]
    assert {document["kind"] for document in documents} == set(CUSTOM)
    imports = [f'import {{ {kind} }} from "@kubernetes-models/{path}";' for kind, path in CUSTOM.items()]
    checks = [f"new {document['kind']}({json.dumps(document)}).validate();" for document in documents]
    # Something wrong must be found, or the rest says nothing.
    wrong = "try { new ScaledObject({ spec: {} }).validate(); process.exit(1) } catch (error) {}"
    script = "\n".join([*imports, *checks, wrong])
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", script],
        cwd=crd_schemas(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", VALUES)
def test_pods_have_no_rights_and_their_secrets_are_files(name: str, tmp_path: Path) -> None:
    documents = render(*values_of(name, tmp_path))
    specs = [pod_spec(document) for document in documents if document["kind"] in PODS]
    assert len(specs) == 4
    for spec in specs:
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert ("runAsUser" in spec["securityContext"]) is (name != "openshift")
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
    shown = [document for document in documents if document["kind"] != "Secret"]
    assert SECRET not in yaml.safe_dump_all(shown)


@pytest.mark.parametrize("role", SECTIONS)
def test_the_settings_of_each_role_are_valid(role: str, tmp_path: Path) -> None:
    documents = render(*values_of("everything", tmp_path))
    named = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    kind = "Deployment" if role == "reconcile" else "StatefulSet"
    container = pod_spec(named[kind, f"x-bookings-ingest-{role}"])["containers"][0]
    assert container["args"][0] == role
    settings = settings_of(container, named, tmp_path)
    assert settings["log"] == "kafka://kafka:9092"
    assert settings["receiver"]["spool_dir"] == "/var/lib/ingest/data/spool"
    assert "sales" in settings["accounts"]
    port = next(entry["containerPort"] for entry in container["ports"] if entry["name"] == "admin")
    section = SECTIONS[role]
    assert settings[section]["admin_port"] == port
    assert settings[section]["admin_host"] == "::"
    assert settings[section]["admin_token"], "other machines may ask"


def settings_of(container: dict[str, Any], named: Named, folder: Path) -> Any:
    """Return the settings of a container with the chart's settings and secrets."""
    config, secrets = folder / "ingest.toml", folder / "secrets"
    config.write_text(named["ConfigMap", "x-bookings-ingest"]["data"]["ingest.toml"])
    secrets.mkdir()
    for key, value in named["Secret", "x-bookings-ingest"]["data"].items():
        (secrets / key).write_bytes(base64.b64decode(value))
    environ = {entry["name"]: entry.get("value", "x-bookings-ingest-pod-0") for entry in container["env"]}
    return settings_with(environ | {"INGEST_CONFIG": str(config), "INGEST_SECRETS_DIR": str(secrets)})


def test_the_dashboard_asks_the_other_parts_by_names_to_which_they_answer(tmp_path: Path) -> None:
    documents = render(*values_of("everything", tmp_path))
    named = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    container = pod_spec(named["Deployment", "x-bookings-ingest-reconcile"])["containers"][1]
    settings = settings_of(container, named, tmp_path)
    assert container["args"] == ["dashboard"]
    assert settings["dashboard"]["hosts"] == ["bookings.example.com"]
    assert settings["dashboard"]["token"]
    assert settings["dashboard"]["port"] == container["ports"][0]["containerPort"]
    for role in ("receive", "consume"):
        asked = settings[SECTIONS[role]]["admin_host"]
        assert ("Service", asked) in named
        asker = {"name": f"INGEST_{SECTIONS[role].upper()}__ADMIN_HOSTS", "value": asked}
        assert asker in pod_spec(named["StatefulSet", f"x-bookings-ingest-{role}"])["containers"][0]["env"]
        admin = named["NetworkPolicy", f"x-bookings-ingest-{role}"]["spec"]["ingress"][-1]
        assert any("podSelector" in source for source in admin["from"]), "the dashboard is let in"


def test_what_pods_cannot_share_is_refused() -> None:
    for option in ("log=sqlite:///data/log.db", "warehouse.destination=duckdb", "recieve.replicas=2"):
        done = subprocess.run(
            [str(helm()), "template", "x", str(CHART), "--set", option],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert option.partition("=")[0].split(".")[0] in done.stderr


def test_a_pod_that_goes_waits_for_its_spool_longer_than_it_is_given_to_drain() -> None:
    for document in render("--set", "receive.drainSeconds=200"):
        if document["kind"] == "StatefulSet" and document["metadata"]["name"].endswith("receive"):
            (container,) = pod_spec(document)["containers"]
            assert container["lifecycle"]["preStop"]["exec"]["command"][-1] == "200"
            assert pod_spec(document)["terminationGracePeriodSeconds"] > 200


def test_the_chart_has_the_version_and_the_rules_of_the_product() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == ingest.__version__
    assert (CHART / "files" / "rules.yaml").read_text() == RULES.read_text(), (
        "a copy, as a chart cannot look outside"
    )
    assert Settings.model_fields["log"].default.startswith("sqlite"), "which the chart replaces"
