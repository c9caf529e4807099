"""Docs and code say the same: settings, metrics, alerts, commands, version."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from demo.configuration import ROOT, RULES
from exporter.collector import ExporterCollector, ExporterMetrics, make_registry
from exporter.event_buffer import Post
from exporter.pollers import StateStore
from exporter.silence.model import Threshold
from reconnect_hook.dashboard.snapshot import Problem
from reconnect_hook.event_log import StepKind
from reconnect_hook.history import RepairHistory
from reconnect_hook.message_audit import AuditRepository
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.models import Backoff, Outcome
from reconnect_hook.schema import open_state
from tests.support.hooks import hook_settings
from zapwatch import __version__, config
from zapwatch.config import SilenceMode, parse, parse_env
from zapwatch.config.settings import BY_KEY, BY_NAME, SETTINGS
from zapwatch.metrics import ReloadMetrics

_REFERENCE = ROOT / "docs" / "reference"
SETTINGS_PAGE = (_REFERENCE / "settings.md").read_text()
METRICS_PAGE = (_REFERENCE / "metrics.md").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
LEAST = {
    "WPP_GATEWAY_BASE_URL": "https://gateway.example.com:8443",
    "WPP_GATEWAY_SECRET": "x",
    "DB_HOST": "localhost",
    "DB_USER": "zapwatch",
}


def section(page: str, title: str) -> str:
    return page.partition(f"\n{title}\n")[2].partition("\n#")[0]


def settings_table() -> str:
    """Return the rows of the page's table of settings."""
    rows = []
    for row in SETTINGS:
        names = [f"`{row.name}`", *([f"`{row.name}_FILE`"] if row.secret else [])]
        keys = [f"`{row.key}`", *([f"`{row.key}_file`"] if row.secret else [])] if row.key else []
        default = f"`{row.default}`" if row.default else ""
        rows.append(f"| {', '.join(names)} | {', '.join(keys)} | {default} | {row.help} |\n")
    return "".join(rows).replace("|  |", "| |").replace("|  |", "| |")


def test_the_pages_table_is_the_table_of_settings() -> None:
    table = section(SETTINGS_PAGE, "## All settings").partition("| --- | --- | --- | --- |\n")[2]
    assert table.strip() == settings_table().strip()


def test_the_example_names_every_secrets_file() -> None:
    named = {name for name in re.findall(r"\w+_FILE", EXAMPLE) if name not in parse_env(EXAMPLE)}
    assert named == {f"{name}_FILE" for name in config.SECRETS}


def test_the_example_holds_every_setting_with_its_default() -> None:
    values = parse_env(EXAMPLE)
    assert set(values) == {row.name for row in SETTINGS}
    for row in SETTINGS:
        assert values[row.name] == row.default or not row.default
    assert parse({**values, "WPP_GATEWAY_SECRET": "x"}) == parse(LEAST)


class Recorded(dict[str, str]):
    """Values that note which of them were looked up."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.names.add(name)
        return super().get(name, default)


def test_every_setting_is_read_and_no_other() -> None:
    values = Recorded(LEAST)
    parse(values)
    # It names a file of values, which have been read by then.
    assert values.names | {"PIXELHUB_ENV"} == {row.name for row in SETTINGS}


def test_no_two_settings_have_one_name_or_key() -> None:
    assert len(BY_NAME) == len(SETTINGS)
    assert len(BY_KEY) == len([row for row in SETTINGS if row.key])


def published(registry: CollectorRegistry) -> set[str]:
    return {
        family.name + ("_total" if family.type == "counter" else "")
        for family in registry.collect()
    }


def documented(title: str) -> set[str]:
    text = section(METRICS_PAGE, title)
    return set(re.findall(r"^\| `(whatsapp_\w+)`", text, re.MULTILINE))


def test_the_exporters_metrics_are_the_documented_ones() -> None:
    metrics = ExporterMetrics(
        StateStore(),
        "wpp",
        lambda *_: Threshold(1, SilenceMode.FIXED),
        lambda *_: 1.0,
        with_log=True,
    )
    registry = make_registry(ExporterCollector([metrics]))
    registry.register(Post(parse(hook_settings("http://127.0.0.1:1"))).events)
    ReloadMetrics(registry, "whatsapp_exporter")
    names = published(registry)
    ours = {name for name in names if not name.startswith(("process_", "python_"))}
    assert ours == documented("## The exporter")
    assert names - ours >= {"process_resident_memory_bytes", "python_info"}


def test_the_description_of_the_api_has_all_its_words() -> None:
    description = (ROOT / "reconnect_hook" / "openapi.yaml").read_text()
    schemas = yaml.safe_load(description)["components"]["schemas"]
    steps = schemas["LoggedAttempt"]["properties"]["steps"]["items"]
    assert steps["properties"]["step"]["enum"] == list(StepKind)
    assert schemas["Trouble"]["enum"] == list(Problem)


def test_the_hooks_metrics_are_the_documented_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may take longer than a scrape allows.
    monkeypatch.setattr("reconnect_hook.metrics._READ_SECONDS", 60.0)
    metrics = HookMetrics()
    url = parse(
        hook_settings("http://127.0.0.1:1", HOOK_STATE_URL=f"sqlite:///{tmp_path}/state")
    ).hook_state_url
    database = open_state(url)
    metrics.watch(
        "wpp", RepairHistory(database, "wpp", Backoff(300)), AuditRepository(database, "wpp")
    )
    shared = {"whatsapp_gateway_request_duration_seconds", "whatsapp_gateway_request_errors_total"}
    names = published(metrics.registry)
    ours = {name for name in names if not name.startswith(("process_", "python_"))}
    assert ours - shared == documented("## The hook")
    assert names - ours >= {"process_resident_memory_bytes", "python_info"}
    database.close()


def rules() -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for path in RULES.glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            found += [rule for rule in group["rules"] if "alert" in rule]
    return found


def test_every_benchmark_is_on_its_page() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    files = (ROOT / "benchmarks").glob("*.py")
    programs = {path.stem for path in files if "__main__" in path.read_text(encoding="utf-8")}
    assert programs <= set(re.findall(r"`([a-z_]+)", page))


@pytest.mark.parametrize("folder", ["runbook", "pt-BR/runbook"])
def test_every_alert_has_its_runbook_page_and_every_page_its_alert(folder: str) -> None:
    pages = {page.stem: page for page in (ROOT / "docs" / folder).glob("*.md")}
    del pages["README"]
    assert pages.keys() == {rule["alert"] for rule in rules()}
    for alert, page in pages.items():
        assert page.read_text(encoding="utf-8").startswith(f"# {alert}\n")


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_is_explained(outcome: Outcome) -> None:
    assert f"| `{outcome}` |" in METRICS_PAGE


def test_the_version_is_the_installed_one_and_has_its_changes() -> None:
    assert version("zapwatch") == __version__
    assert f"\n## {__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_every_guarantee_names_tests_that_are_there() -> None:
    text = (ROOT / "docs" / "design" / "guarantees.md").read_text().partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and "shown by" not in line]
    promises = [row for row in rows if not row.startswith("| ---")]
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert promises
    for promise in promises:
        named = set(re.findall(r"`(test_\w+)`", promise))
        assert named, promise
        assert named <= written, named - written
