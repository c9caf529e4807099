"""The Kubernetes manifests: valid, confined, and the same in what the loop runs with too."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from demo.configuration import RULES
from tests.support.shipped import ROOT, run
from zapwatch import __version__
from zapwatch.config import SECRETS, parse

_FOLDER = ROOT / "deploy" / "kubernetes"
_KUBERNETES = "1.37"
_HA = ROOT / "deploy" / "ha"
_OPERATOR = "monitoring.coreos.com/"
_PODS = (("Deployment", "zapwatch-exporter"), ("StatefulSet", "zapwatch-hook"))


@functools.cache
def _objects() -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted(_FOLDER.glob("*.yaml"))]
    texts.append(run(_FOLDER / "rules.sh"))
    return [one for text in texts for one in yaml.safe_load_all(text)]


def _one(kind: str, name: str = "zapwatch") -> dict[str, Any]:
    (found,) = (o for o in _objects() if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def test_each_object_follows_its_schema_without_unknown_fields_in_one_namespace() -> None:
    # Imported here, since these take seconds, in each process that collects tests.
    import kubernetes_validate
    from cloudcoil.models.prometheus_operator import v1, v1alpha1

    models: dict[str, type[BaseModel]] = {
        "ServiceMonitor": v1.ServiceMonitor,
        "PrometheusRule": v1.PrometheusRule,
        "AlertmanagerConfig": v1alpha1.AlertmanagerConfig,
    }

    def validate(manifest: dict[str, Any]) -> None:
        if manifest["apiVersion"].startswith(_OPERATOR):
            models[manifest["kind"]].model_validate(manifest, extra="forbid")
        else:
            kubernetes_validate.validate(manifest, _KUBERNETES, strict=True)

    for manifest in _objects():
        validate(manifest)
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "zapwatch"
        if manifest["kind"] in {"Deployment", "StatefulSet", "AlertmanagerConfig"}:
            with pytest.raises((ValidationError, kubernetes_validate.ValidationError)):
                validate({**manifest, "spec": {**manifest["spec"], "replikas": 2}})


def test_the_rules_are_the_shipped_ones() -> None:
    files = [*sorted(RULES.glob("*.yml")), *sorted((_HA / "rules").glob("*.yml"))]
    for path in files:
        made = _one("PrometheusRule", f"zapwatch-{path.stem}")
        shipped = yaml.safe_load(path.read_text())
        for group in shipped["groups"]:
            group.setdefault("interval", "3s")
            for rule in group["rules"]:
                if "alert" in rule:
                    rule["labels"]["namespace"] = "zapwatch"
        assert made["spec"] == shipped
    assert len(files) == sum(one["kind"] == "PrometheusRule" for one in _objects())


def _plain(word: str) -> str:
    """Return the name that Alertmanager itself has for one of the operator's."""
    words = {"sourceMatch": "source_matchers", "targetMatch": "target_matchers"}
    return words.get(word) or re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", word)


def _translate(value: Any) -> Any:
    """Return what the operator makes of a part of an AlertmanagerConfig."""
    if isinstance(value, list):
        return [_translate(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "matchType" in value:
        return f'{value["name"]}{value["matchType"]}"{value["value"]}"'
    return {_plain(key): _translate(one) for key, one in value.items()}


def _hooks(receiver: dict[str, Any]) -> list[tuple[str, bool, bool, int]]:
    found = []
    for webhook in receiver["webhook_configs"]:
        path = webhook["url"].rpartition("/")[2]
        redirects = webhook["http_config"]["follow_redirects"]
        found.append((path, redirects, webhook["send_resolved"], webhook["max_alerts"]))
    return found


def test_the_routes_are_those_of_the_cluster() -> None:
    made = _translate(_one("AlertmanagerConfig")["spec"])
    shipped = yaml.safe_load((_HA / "alertmanager.yml").read_text())
    assert made["route"] == shipped["route"]
    assert made["inhibit_rules"] == shipped["inhibit_rules"]
    for receiver, same in zip(made["receivers"], shipped["receivers"], strict=True):
        assert receiver["name"] == same["name"]
        if receiver["name"] != "heartbeat":
            assert _hooks(receiver) == _hooks(same)


def test_alertmanager_tells_each_hook_by_its_name() -> None:
    hook = _one("StatefulSet", "zapwatch-hook")
    hosts = {
        re.findall(r"//([^:/]+):9862/", webhook["url"])[0]
        for receiver in _one("AlertmanagerConfig")["spec"]["receivers"]
        for webhook in receiver["webhookConfigs"]
        if "url" in webhook
    }
    service = hook["spec"]["serviceName"]
    assert hosts == {
        f"{hook['metadata']['name']}-{number}.{service}.zapwatch.svc"
        for number in range(hook["spec"]["replicas"])
    }
    assert _one("Service", service)["spec"]["clusterIP"] == "None"


def test_the_scraped_services_have_the_names_that_the_rules_ask_for() -> None:
    asked = {job for path in RULES.glob("*.yml") for job in _jobs(path)}
    (selected,) = _one("ServiceMonitor")["spec"]["selector"]["matchExpressions"]
    assert _one("ServiceMonitor")["spec"]["jobLabel"] == selected["key"]
    assert asked == set(selected["values"])
    monitored = {endpoint["port"] for endpoint in _one("ServiceMonitor")["spec"]["endpoints"]}
    for name in asked:
        service = _one("Service", name)
        assert service["metadata"]["labels"][selected["key"]] == name
        assert {port["name"] for port in service["spec"]["ports"]} <= monitored


def _jobs(path: Path) -> list[str]:
    return re.findall(r'job="([^"]*)"', path.read_text())


@pytest.mark.parametrize(("kind", "name"), _PODS)
def test_the_pods_are_confined_and_their_version_is_this_one(kind: str, name: str) -> None:
    pod = _one(kind, name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["image"] == f"{name}:{__version__}"
        assert container["resources"]["limits"]["memory"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_every_secret_is_a_reference_that_the_guide_fills() -> None:
    assert not any(one["kind"] == "Secret" for one in _objects())
    guide = (ROOT / "docs" / "kubernetes.md").read_text()
    made = set(re.findall(r"--from-(?:file|literal)=([\w-]+)[ =]", guide))
    text = "".join(path.read_text() for path in _FOLDER.glob("*.yaml"))
    used = set(re.findall(r"/run/secrets/zapwatch/([\w-]+)", text))
    used |= set(re.findall(r"name: zapwatch\n +key: ([\w-]+)", text))
    assert used == made
    mounted = set(re.findall(r"- key: ([\w-]+)\n +path: \1\n", text))
    assert mounted == {"gateway-secret", "db-password"}


def test_the_settings_are_understood() -> None:
    data = _one("ConfigMap")["data"]
    assert not set(data) & set(SECRETS)
    for kind, name in _PODS:
        (container,) = _one(kind, name)["spec"]["template"]["spec"]["containers"]
        own = {one["name"]: one["value"] for one in container["env"]}
        files = {key.removesuffix("_FILE") for key in own if key.endswith("_FILE")}
        assert files <= set(SECRETS)
        plain = {key: value for key, value in own.items() if not key.endswith("_FILE")}
        secrets = {"WPP_GATEWAY_SECRET": "x", "DB_PASS": "x", "HOOK_TOKEN": "x"}
        parse({**data, **plain, **secrets})
