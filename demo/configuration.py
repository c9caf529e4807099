"""The shipped configuration of Prometheus and Alertmanager, adapted to addresses and paths."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zapwatch.config import Listen
from zapwatch.setup import files

ROOT = files.ROOT
"""Folder of the shipped configuration, in the checkout or in an installed wheel."""

RULES = ROOT / "prometheus" / "rules"
"""Folder of the shipped Prometheus rules."""

ALERTMANAGER = ROOT / "alertmanager"
"""Folder of the shipped alertmanager.yml and its templates."""

_JOBS = {
    "zapwatch-exporter": "exporter",
    "zapwatch-hook": "hook",
    "prometheus": "prometheus",
    "alertmanager": "alertmanager",
}
"""Scrape jobs, each with its field of Addresses."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Listen addresses of the four programs of one installation."""

    exporter: Listen
    hook: Listen
    prometheus: Listen
    alertmanager: Listen


def free_or_other(wanted: Listen) -> Listen:
    """Return the address, with a free port instead if that one is in use."""
    for port in (wanted.port, 0):
        family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
        try:
            with socket.create_server((wanted.host, port), family=family) as listener:
                return Listen(wanted.host, listener.getsockname()[1])
        except OSError:
            continue
    return wanted


def write_prometheus(folder: Path, at: Addresses, rules: Path) -> Path:
    """Write the shipped prometheus.yml with these addresses and rules; return its path."""
    config = _load(ROOT / "prometheus" / "prometheus.yml")
    config["rule_files"] = [str(rules.resolve() / "*.yml")]
    for manager in config["alerting"]["alertmanagers"]:
        manager["static_configs"] = [{"targets": [str(at.alertmanager)]}]
    for job in config["scrape_configs"]:
        address = getattr(at, _JOBS[job["job_name"]])
        job["static_configs"] = [{"targets": [str(address)]}]
    return _dump(config, folder / "prometheus.yml")


def write_alertmanager(folder: Path, at: Addresses, shipped: Path, token: str) -> Path:
    """Write the alertmanager.yml in ``shipped`` and its token file; return its path."""
    token_file = folder / "hook-token"
    token_file.touch(mode=0o600)
    token_file.chmod(0o600)
    token_file.write_text(token)
    config = _load(shipped / "alertmanager.yml")
    config["templates"] = [str(shipped / pattern) for pattern in config.get("templates", [])]
    for receiver in config["receivers"]:
        for webhook in receiver.get("webhook_configs", []):
            if "127.0.0.1:9862" in webhook["url"]:
                webhook["url"] = webhook["url"].replace("127.0.0.1:9862", str(at.hook))
                webhook["http_config"]["authorization"]["credentials_file"] = str(token_file)
    return _dump(config, folder / "alertmanager.yml")


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def _dump(config: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path
