"""The files of deploy/ha/: valid, and the shipped ones in all that is not about two machines."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.shipped import ALERTMANAGER, PROMETHEUS, ROOT, read_yaml, run
from zapwatch.config import parse, parse_env

_HA = ROOT / "deploy" / "ha"
_MACHINES = ("machine-a", "machine-b")
_PORTS = {"exporters": 9861, "hooks": 9862, "prometheus": 9090, "alertmanagers": 9093}


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """Return what the guide puts into /etc/prometheus, remote write included."""
    shutil.copytree(PROMETHEUS / "rules", tmp_path / "rules")
    shutil.copytree(ALERTMANAGER / "templates", tmp_path / "templates")
    shutil.copytree(_HA, tmp_path, dirs_exist_ok=True)
    (tmp_path / "hook-token").write_text("token")
    config = tmp_path / "prometheus.yml"
    config.write_text(config.read_text() + (tmp_path / "remote-write.yml").read_text())
    return tmp_path


def test_promtool_accepts_the_configuration_with_all_rules(etc: Path) -> None:
    files = len(list((etc / "rules").glob("*.yml")))
    said = run("promtool", "check", "config", etc / "prometheus.yml")
    assert f"{files} rule files found" in said
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *(etc / "rules").glob("*.yml"))


def test_promtool_tests_of_the_further_rules_pass() -> None:
    run("promtool", "test", "rules", *(_HA / "tests").glob("*.yml"))


def test_amtool_accepts_the_routes(etc: Path) -> None:
    run("amtool", "check-config", etc / "alertmanager.yml")


def test_alertmanager_has_the_shipped_routes() -> None:
    ours, shipped = (read_yaml(folder / "alertmanager.yml") for folder in (_HA, ALERTMANAGER))
    for part in ("templates", "route", "inhibit_rules"):
        assert ours[part] == shipped[part]


def test_each_of_the_shipped_webhooks_is_there_once_for_each_machine() -> None:
    ours, shipped = (read_yaml(folder / "alertmanager.yml") for folder in (_HA, ALERTMANAGER))
    *receivers, heartbeat = ours["receivers"]
    assert heartbeat["name"] == "heartbeat"
    assert receivers == [
        {
            "name": receiver["name"],
            "webhook_configs": [
                {**webhook, "url": webhook["url"].replace("127.0.0.1", machine)}
                for webhook in receiver["webhook_configs"]
                for machine in _MACHINES
            ],
        }
        for receiver in shipped["receivers"]
        if receiver["name"] != heartbeat["name"]
    ]


def test_prometheus_asks_as_often_and_for_the_same_jobs_as_the_shipped_one() -> None:
    ours, shipped = (read_yaml(folder / "prometheus.yml") for folder in (_HA, PROMETHEUS))
    assert ours["global"].pop("external_labels") == {"replica": "${REPLICA}"}
    assert ours["global"] == shipped["global"]
    assert _jobs(ours) == _jobs(shipped)


def _jobs(config: Any) -> list[str]:
    return [job["job_name"] for job in config["scrape_configs"]]


@pytest.mark.parametrize(("name", "port"), _PORTS.items())
def test_both_machines_are_watched(name: str, port: int) -> None:
    (group,) = yaml.safe_load((_HA / "targets" / f"{name}.yml").read_text())
    assert group == {"targets": [f"{machine}:{port}" for machine in _MACHINES]}


def test_the_settings_are_understood() -> None:
    text = (_HA / "zapwatch.env").read_text().replace("this-machine", "192.0.2.1")
    example = (ROOT / ".env.example").read_text() + text
    settings = parse({**parse_env(example), "WPP_GATEWAY_SECRET": "x"})
    assert settings.hook_state_url.host == "state-database"
    assert str(settings.hook_listen) == "192.0.2.1:9862"
