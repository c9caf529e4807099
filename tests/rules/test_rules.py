"""The Prometheus files: what promtool says of them, and what promtool does not look at."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.shipped import (
    ALERTMANAGER,
    ALERTS,
    PROMETHEUS,
    PROMTOOL_TESTS,
    ROOT,
    RULE_FILES,
    Alert,
    expectations,
    label_sets,
    read_yaml,
    run,
    seconds,
)

CHANNEL_ALERTS = {
    "WhatsAppChannelFlapping",
    "WhatsAppChannelGone",
    "WhatsAppChannelStillSilent",
    "WhatsAppChannelDisconnected",
    "WhatsAppChannelNeedsQrScan",
    "WhatsAppChannelNeverHeard",
    "WhatsAppChannelSilent",
    "WhatsAppChannelSuspect",
    "WhatsAppDeliveryBroken",
    "WhatsAppMessagesMissed",
    "WhatsAppReconnectFailing",
}
REPAIRED = {"WhatsAppChannelDisconnected", "WhatsAppChannelNeverHeard", "WhatsAppChannelSilent"}
ASKED = {"WhatsAppChannelSuspect"}
WARNINGS = REPAIRED | {
    "WhatsAppChannelsLeftOut",
    "WhatsAppConfigReloadFailing",
    "WhatsAppMessageLogDown",
    "WhatsAppMessageLogStalled",
}

STARTS_OF_PROMETHEUS = (
    "deploy/container/compose.yaml",
    "deploy/ha/default/prometheus",
    "docs/install.md",
    "docs/start.md",
    "docs/pt-BR/install.md",
    "docs/pt-BR/start.md",
)
EXPORTER_POLL_SECONDS = 5
FROM_DROP_TO_REPAIR_SECONDS = 30

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    shutil.copytree(ALERTMANAGER, tmp_path / "alertmanager")
    (tmp_path / "alertmanager" / "hook-token").write_text("token")
    said = run("promtool", "check", "config", tmp_path / "prometheus" / "prometheus.yml")
    assert f"{len(RULE_FILES)} rule files found" in said


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_promtool_accepts_the_rules(path: Path) -> None:
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", path)


@pytest.mark.parametrize("path", PROMTOOL_TESTS, ids=lambda path: path.name)
def test_promtool_tests_pass(path: Path) -> None:
    run("promtool", "test", "rules", path)


def test_a_label_that_an_operator_adds_to_each_record_breaks_no_rule(tmp_path: Path) -> None:
    """As the Prometheus operator does with ``enforcedNamespaceLabel``."""
    shutil.copytree(PROMETHEUS, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "rules").iterdir():
        text = re.sub(
            r"(?m)^( +)- record: .*$", r"\g<0>\n\1  labels: {namespace: x}", path.read_text()
        )
        path.write_text(text)
    run("promtool", "test", "rules", tmp_path / "tests" / "outages.yml")


@each_alert
def test_an_alert_tells_people_what_it_is_and_what_to_do(alert: Alert) -> None:
    annotations = alert.rule["annotations"]
    link = {"dashboard_url"} if alert.name in CHANNEL_ALERTS else set()
    assert set(annotations) == {"summary", "description", "runbook_url"} | link
    assert all(text.strip() for text in annotations.values())
    # One line: it becomes a mail's subject.
    assert "\n" not in annotations["summary"]
    # Prometheus puts the page's address before it, as the tests of promtool show.
    assert annotations["runbook_url"].endswith(f"}}/docs/runbook/{alert.name}")


@each_alert
def test_an_alert_says_how_bad_it_is_and_who_repairs_it(alert: Alert) -> None:
    expected = {"severity": "warning" if alert.name in WARNINGS else "critical"}
    if alert.name in REPAIRED:
        expected["remediation"] = "reconnect"
    if alert.name in ASKED:
        expected = {"severity": "info", "remediation": "probe"}
    if alert.name == "Watchdog":
        expected = {"severity": "none"}
    assert alert.labels == expected


@each_alert
def test_an_alert_is_tested_for_firing_not_firing_and_recovering(alert: Alert) -> None:
    histories: dict[tuple[str, str], list[tuple[float, bool]]] = {}
    for expectation in expectations():
        if expectation.alert == alert.name:
            moment = (expectation.seconds, bool(expectation.label_sets))
            histories.setdefault(expectation.test, []).append(moment)
    ways = [
        "".join("F" if fires else "-" for _, fires in sorted(history))
        for history in histories.values()
    ]
    assert any(re.search("-F+-", way) for way in ways), ways


@each_alert
def test_an_alert_carries_a_channel_exactly_if_it_concerns_one(alert: Alert) -> None:
    """Any further label, such as an exporter's address, would make two alerts of one failure."""
    found = {frozenset(labels) for labels in label_sets(alert)}
    assert found
    own = {"alertname", *alert.labels}
    if alert.name in CHANNEL_ALERTS:
        assert found == {frozenset({"gateway", "channel", *own})}
    else:
        assert not any("channel" in labels for labels in found)


def test_the_rules_ask_for_the_jobs_that_are_scraped() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in RULE_FILES)
    asked = set(re.findall(r'job="([^"]*)"', rules))
    scraped = {
        job["job_name"] for job in read_yaml(PROMETHEUS / "prometheus.yml")["scrape_configs"]
    }
    assert asked
    assert asked <= scraped


@pytest.mark.parametrize("path", STARTS_OF_PROMETHEUS)
def test_a_restart_of_prometheus_ends_no_alert(path: str) -> None:
    """Without the option each ``for`` of less than ten minutes begins again."""
    assert (ROOT / path).read_text().count("--rules.alert.for-grace-period=1m") == 1


@pytest.mark.parametrize("path", [*STARTS_OF_PROMETHEUS, "demo/loop.py"])
def test_prometheus_keeps_the_month_that_the_page_shows(path: str) -> None:
    assert (ROOT / path).read_text().count("--storage.tsdb.retention.time=31d") == 1


def test_a_drop_reaches_the_hook_within_thirty_seconds() -> None:
    """The longest way: each step just misses what it waits for."""
    timing = read_yaml(PROMETHEUS / "prometheus.yml")["global"]
    (disconnected,) = (a for a in ALERTS if a.name == "WhatsAppChannelDisconnected")
    route = read_yaml(ALERTMANAGER / "alertmanager.yml")["route"]["routes"][0]
    longest = (
        EXPORTER_POLL_SECONDS
        + seconds(timing["scrape_interval"])
        + seconds(timing["evaluation_interval"])
        + seconds(disconnected.rule["for"])
        + seconds(route["group_wait"])
    )
    assert longest <= FROM_DROP_TO_REPAIR_SECONDS
