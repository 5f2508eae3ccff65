"""The manifests: every field is known, and what names something names what there is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from allim.base.settings import Environment
from allim.composition.settings import RelaySettings, check
from allim.web.access import refuse_open_bind
from allim.web.keys import read_keys
from tests.deploy.surroundings import DEPLOY, documents, is_command, settings, within

PLACE = DEPLOY / "kubernetes"
API_PORT = 18080
Manifest = Mapping[str, Any]

KINDS = {
    "Namespace": "v1",
    "ConfigMap": "v1",
    "Secret": "v1",
    "Service": "v1",
    "Deployment": "apps/v1",
    "Job": "batch/v1",
    "PodDisruptionBudget": "policy/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Kustomization": "kustomize.config.k8s.io/v1beta1",
}
# Of what the API knows, the fields that are used here: a field that is misspelled is not among
# them. Needed ones stand first, before the bar.
FIELDS: Mapping[str, tuple[set[str], set[str]]] = {
    "Deployment": ({"selector", "template"}, {"replicas", "strategy"}),
    "Job": (
        {"template"},
        {"backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"},
    ),
    "Service": ({"selector", "ports"}, {"type"}),
    "PodDisruptionBudget": ({"selector", "minAvailable"}, set()),
    "HorizontalPodAutoscaler": (
        {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics"},
        {"behavior"},
    ),
    "NetworkPolicy": ({"podSelector", "policyTypes"}, {"ingress", "egress"}),
}
POD = (
    {"containers", "securityContext", "automountServiceAccountToken"},
    {
        "enableServiceLinks",
        "restartPolicy",
        "terminationGracePeriodSeconds",
        "topologySpreadConstraints",
        "volumes",
    },
)
CONTAINER = (
    {"name", "image", "args", "envFrom", "resources", "securityContext"},
    {"ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "volumeMounts"},
)
PROBE = (
    {"httpGet", "periodSeconds", "failureThreshold"},
    {"timeoutSeconds", "initialDelaySeconds"},
)


def manifests() -> Sequence[Manifest]:
    return [
        manifest
        for path in sorted(PLACE.glob("*.yaml"))
        for manifest in documents(path.read_text("utf-8"))
    ]


def of_kind(*kinds: str) -> Iterator[Manifest]:
    found = [document for document in manifests() if document["kind"] in kinds]
    assert found
    yield from found


def named(kind: str, name: str) -> Manifest:
    (found,) = [one for one in of_kind(kind) if one["metadata"]["name"] == name]
    return found


def pod(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Manifest) -> Manifest:
    (only,) = pod(workload)["containers"]
    found: Manifest = only
    return found


def workloads() -> Sequence[Manifest]:
    return list(of_kind("Deployment", "Job"))


def chosen(selector: Manifest) -> Sequence[Manifest]:
    """The workloads whose pods a selector takes."""
    found = []
    for workload in workloads():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        if selector.get("matchLabels", {}).items() <= labels.items() and all(
            expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
            for expression in selector.get("matchExpressions", ())
        ):
            found.append(workload)
    return found


def known(value: Manifest, fields: tuple[set[str], set[str]], about: str) -> None:
    needed, more = fields
    assert needed <= set(value), f"{about} lacks {needed - set(value)}"
    assert set(value) <= needed | more, f"{about} has {set(value) - needed - more}"


def given() -> dict[str, str]:
    """What a pod's environment is made of."""
    values = {**named("ConfigMap", "allim-settings")["data"]}
    values |= named("Secret", "allim-secrets")["stringData"]
    return values


def test_every_field_is_known_and_none_is_missing() -> None:
    for document in manifests():
        kind = document["kind"]
        assert document["apiVersion"] == KINDS[kind]
        if kind == "Kustomization":
            continue
        about = f"{kind} {document['metadata']['name']}"
        if kind in FIELDS:
            assert set(document) == {"apiVersion", "kind", "metadata", "spec"}, about
            known(document["spec"], FIELDS[kind], about)
    for workload in workloads():
        about = workload["metadata"]["name"]
        known(pod(workload), POD, about)
        known(container(workload), CONTAINER, about)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if workload["kind"] == "Deployment":
                known(container(workload)[probe], PROBE, f"{about} {probe}")
                known(container(workload)[probe]["httpGet"], ({"path", "port"}, set()), about)
    for document in manifests():
        for value in within(document.get("data", {})):
            assert all(isinstance(item, str) for item in value.values()), "must be strings"


def test_names_are_used_once() -> None:
    every = [(one["kind"], one.get("metadata", {}).get("name")) for one in manifests()]
    assert len(set(every)) == len(every)


def test_selectors_find_the_pods_they_mean() -> None:
    for deployment in of_kind("Deployment"):
        assert chosen(deployment["spec"]["selector"]) == [deployment]
        for constraint in pod(deployment).get("topologySpreadConstraints", ()):
            assert chosen(constraint["labelSelector"]) == [deployment]
    for budget in of_kind("PodDisruptionBudget"):
        (found,) = chosen(budget["spec"]["selector"])
        assert found["metadata"]["name"] == budget["metadata"]["name"]
        assert found["spec"]["replicas"] > budget["spec"]["minAvailable"], "could never drain"
    for scaler in of_kind("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        found = named(target["kind"], target["name"])
        assert target["apiVersion"] == found["apiVersion"]
        assert found["spec"]["replicas"] == scaler["spec"]["minReplicas"]
        assert scaler["spec"]["maxReplicas"] >= scaler["spec"]["minReplicas"]
        assert container(found)["resources"]["requests"]["cpu"], "utilization is of the request"


def test_ports_that_are_named_exist() -> None:
    metrics_port = int(given()["ALLIM_RELAY_METRICS_PORT"])
    for deployment in of_kind("Deployment"):
        inside = container(deployment)
        ports = {port["name"]: port["containerPort"] for port in inside["ports"]}
        assert ports in ({"http": API_PORT}, {"metrics": metrics_port})
        assert ("http" in ports) == (inside["args"] == ["api"])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert inside[probe]["httpGet"]["port"] in ports
        assert inside["readinessProbe"]["httpGet"]["path"] == "/health/ready"
        assert inside["livenessProbe"]["httpGet"]["path"] == "/health/live"
        notes = deployment["spec"]["template"]["metadata"].get("annotations", {})
        if "metrics" in ports:
            assert notes["prometheus.io/port"] == str(metrics_port)
    for service in of_kind("Service"):
        (served,) = chosen({"matchLabels": service["spec"]["selector"]})
        there = {port["name"] for port in container(served)["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= there
    for policy in of_kind("NetworkPolicy"):
        pods = chosen(policy["spec"]["podSelector"])
        assert pods, policy["metadata"]["name"]
        for rule in policy["spec"].get("ingress", ()):
            wanted = {port["port"] for port in rule["ports"]}
            for one in pods:
                assert wanted <= {port["name"] for port in container(one)["ports"]}


def test_every_deployment_can_be_scraped_or_reached_but_nothing_else_comes_in() -> None:
    policies = list(of_kind("NetworkPolicy"))
    (default,) = [one for one in policies if one["spec"]["podSelector"] == {}]
    assert set(default["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in default["spec"]
    reached = [
        found["metadata"]["name"]
        for policy in policies
        if policy is not default
        for found in chosen(policy["spec"]["podSelector"])
    ]
    assert sorted(reached) == sorted(one["metadata"]["name"] for one in of_kind("Deployment"))


@pytest.mark.parametrize("workload", workloads(), ids=lambda one: str(one["metadata"]["name"]))
def test_a_pod_may_do_nothing_that_it_need_not(workload: Manifest) -> None:
    whole, inside = pod(workload), container(workload)
    assert whole["automountServiceAccountToken"] is False
    assert whole["securityContext"]["runAsNonRoot"] is True
    assert whole["securityContext"]["runAsUser"] > 0
    assert whole["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert inside["resources"]["requests"]["memory"]
    assert inside["resources"]["limits"]["memory"]
    volumes = {volume["name"] for volume in whole["volumes"]}
    assert {mount["name"] for mount in inside["volumeMounts"]} == volumes


@pytest.mark.parametrize("workload", workloads(), ids=lambda one: str(one["metadata"]["name"]))
def test_a_pod_runs_a_real_command_with_settings_that_are_there(workload: Manifest) -> None:
    assert is_command(container(workload)["args"])
    sources = [
        (kind, source[reference]["name"])
        for source in container(workload)["envFrom"]
        for reference, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret"))
        if reference in source
    ]
    assert sources == [("ConfigMap", "allim-settings"), ("Secret", "allim-secrets")]


def test_allim_would_start_with_these_settings() -> None:
    plain = set(named("ConfigMap", "allim-settings")["data"])
    secret = set(named("Secret", "allim-secrets")["stringData"])
    assert not plain & secret
    assert plain | secret <= settings()
    environment = check(Environment(given()))
    refuse_open_bind(given()["ALLIM_HOST"], bool(read_keys(given()["ALLIM_API_KEYS"])))
    grace = environment.read(RelaySettings).allim_shutdown_seconds
    for deployment in of_kind("Deployment"):
        assert pod(deployment)["terminationGracePeriodSeconds"] > grace + 5
    for job in of_kind("Job"):
        assert pod(job)["restartPolicy"] in {"OnFailure", "Never"}


def test_the_kustomization_has_every_file_but_the_template_of_secrets() -> None:
    (base,) = of_kind("Kustomization")
    there = {path.name for path in PLACE.glob("*.yaml")}
    assert set(base["resources"]) == there - {"kustomization.yaml", "secret.example.yaml"}
    assert [image["name"] for image in base["images"]] == ["allim"]
    assert {container(workload)["image"] for workload in workloads()} == {"allim"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_it() -> None:
    ended = subprocess.run(["kubectl", "kustomize", PLACE], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    built = documents(ended.stdout)
    assert len(built) == len(manifests()) - 2
    for one in built:
        if one["kind"] != "Namespace":
            assert one["metadata"]["namespace"] == "allim"
        if one["kind"] in {"Deployment", "Job"}:
            assert container(one)["image"] == "registry.example.com/allim:0.1.0"
