"""The shipped Prometheus and Alertmanager files as data, and the tools that check them."""

from __future__ import annotations

import functools
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "prometheus"
ALERTMANAGER = ROOT / "alertmanager"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEMPLATES = ALERTMANAGER / "templates"
LANGUAGES = sorted(path.name for path in TEMPLATES.iterdir() if path.is_dir())
EXAMPLES = ["email_configs", "telegram_configs", "slack_configs"]
PROMTOOL_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


@dataclass(frozen=True)
class Alert:
    """An alerting rule as in its file."""

    name: str
    rule: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.rule["labels"]
        return labels


@dataclass(frozen=True)
class Expectation:
    """A promtool test's expectation for one alert at one time."""

    alert: str
    test: tuple[str, str]
    seconds: float
    label_sets: tuple[dict[str, str], ...]


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def uncomment(text: str, key: str) -> str:
    """Remove the "# " from the lines of the example that starts with ``key``."""
    lines = text.split("\n")
    first = lines.index(f"    # {key}:")
    for number in range(first, len(lines)):
        if not lines[number].strip():
            break
        assert lines[number].startswith("    # "), lines[number]
        lines[number] = "    " + lines[number].removeprefix("    # ")
    return "\n".join(lines)


def seconds(duration: str) -> float:
    """Return the seconds of a Prometheus duration such as 4h10m."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(\D)", duration))


@functools.cache
def expectations() -> tuple[Expectation, ...]:
    """Return what all promtool tests expect; reading them takes half a second."""
    return tuple(
        Expectation(
            check["alertname"],
            (path.name, test["name"]),
            seconds(check["eval_time"]),
            tuple(alert["exp_labels"] for alert in check.get("exp_alerts", ())),
        )
        for path in PROMTOOL_TESTS
        for test in read_yaml(path)["tests"]
        for check in test.get("alert_rule_test", [])
    )


ALERTS = [
    Alert(rule["alert"], rule)
    for path in RULE_FILES
    for group in read_yaml(path)["groups"]
    for rule in group["rules"]
    if "alert" in rule
]


def label_sets(alert: Alert) -> list[dict[str, str]]:
    """Return the alert's full label sets; promtool tests that they are exact."""
    return [
        {"alertname": alert.name, **labels}
        for expectation in expectations()
        if expectation.alert == alert.name
        for labels in expectation.label_sets
    ]


def run(*command: str | Path) -> str:
    """Run a tool and return its output; fail the test if the tool fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
