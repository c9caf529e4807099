"""The steps of docs/prometheus.md on a configuration that has other jobs and routes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.guides import blocks
from tests.support.shipped import ALERTMANAGER, PROMETHEUS, ROOT, RULE_FILES, read_yaml, run

_INSTALLED = "/opt/zapwatch/share/zapwatch"
_THEIRS = """\
global:
  evaluation_interval: 1m
rule_files:
  - zapwatch/*.yml
scrape_configs:
  - job_name: node
    static_configs:
      - targets: ["127.0.0.1:9100"]
"""
_THEIR_ROUTES = """\
route:
  receiver: team
  routes:
    - matchers: [team="web"]
      receiver: team
receivers:
  - name: team
inhibit_rules:
  - source_matchers: [team="web"]
    target_matchers: [team="shop"]
"""


def _pasted(config: str, place: str, block: str) -> str:
    """Paste a block of the page under a key of a configuration, as it stands."""
    assert config.count(place) == 1
    return config.replace(place, place + block)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Copy the rules as the page says, to a folder of the test's own."""
    copy = next(block for block in blocks("prometheus.md", "sh") if "/rules/" in block)
    script = copy.replace("/etc/prometheus", str(tmp_path)).replace(_INSTALLED, str(ROOT))
    subprocess.run(["sh", "-euc", script], cwd=ROOT, check=True)
    return tmp_path / "zapwatch"


def test_the_rules_have_an_interval_of_their_own(rules: Path) -> None:
    interval = read_yaml(PROMETHEUS / "prometheus.yml")["global"]["evaluation_interval"]
    groups = [group for path in rules.glob("*.yml") for group in read_yaml(path)["groups"]]
    slow = {group["name"] for group in groups if group["interval"] != interval}
    assert slow == {"whatsapp-attention", "whatsapp-hourly", "whatsapp-shares"}


def test_promtool_takes_their_configuration_with_our_rules_and_targets(
    rules: Path, tmp_path: Path
) -> None:
    ours = yaml.safe_load(blocks("prometheus.md", "yaml")[0])
    shipped = read_yaml(PROMETHEUS / "prometheus.yml")
    behind_tls = yaml.safe_load(blocks("tls.md", "yaml")[0])["scrape_configs"]
    for job in [*ours, *behind_tls]:
        assert job["scrape_interval"] == shipped["global"]["scrape_interval"]
    both = [{"job_name": j["job_name"], "static_configs": j["static_configs"]} for j in ours]
    assert both == shipped["scrape_configs"][:2]
    config = tmp_path / "prometheus.yml"
    config.write_text(_pasted(_THEIRS, "scrape_configs:\n", blocks("prometheus.md", "yaml")[0]))
    said = run("promtool", "check", "config", config)
    assert f"{len(RULE_FILES)} rule files found" in said
    assert rules.is_dir()


@pytest.fixture
def alertmanager(tmp_path: Path) -> Path:
    text = _THEIR_ROUTES
    for key, block in zip(
        ("  routes", "receivers", "inhibit_rules"), blocks("prometheus.md", "yaml")[1:], strict=True
    ):
        text = _pasted(text, f"{key}:\n", block)
    (tmp_path / "hook-token").write_text("token")
    text = text.replace("/etc/prometheus/hook-token", str(tmp_path / "hook-token"))
    config = tmp_path / "alertmanager.yml"
    config.write_text(text)
    return config


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["remediation=reconnect", "channel=loja", "team=web"], "zapwatch"),
        (["remediation=probe", "channel=loja", "team=web"], "zapwatch"),
        (["alertname=Watchdog", "severity=none"], "zapwatch-heartbeat"),
        (["severity=critical", "channel=loja"], "team"),
        (["severity=critical"], "team"),
    ],
)
def test_repairs_go_to_the_hook_and_the_rest_to_them(
    alertmanager: Path, labels: list[str], receiver: str
) -> None:
    run("amtool", "check-config", alertmanager)
    said = run("amtool", "config", "routes", "test", f"--config.file={alertmanager}", *labels)
    assert said.split() == [receiver]


def test_the_routes_are_the_shipped_ones() -> None:
    shipped = read_yaml(ALERTMANAGER / "alertmanager.yml")
    _, routes, receivers, inhibitions = map(yaml.safe_load, blocks("prometheus.md", "yaml"))
    names = {"zapwatch": "reconnect-hook", "zapwatch-heartbeat": "heartbeat"}
    routes = [{**route, "receiver": names[route["receiver"]]} for route in routes]
    assert routes == shipped["route"]["routes"][:3]
    # The others are about several messages for one cause.
    assert inhibitions == [one for one in shipped["inhibit_rules"] if one["equal"] == ["gateway"]]
    for receiver, same in zip(receivers, shipped["receivers"], strict=False):
        (ours,), (theirs,) = receiver["webhook_configs"], same["webhook_configs"]
        assert ours["url"] == theirs["url"]
        assert ours.get("send_resolved", True) == theirs["send_resolved"]
        assert Path(ours["http_config"]["authorization"]["credentials_file"]).is_absolute()
