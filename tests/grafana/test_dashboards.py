"""The Grafana files: valid, complete, and about things that exist."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins

from demo.configuration import ROOT
from reconnect_hook.message_audit import AuditResult, Replay
from reconnect_hook.models import Outcome, ProbeOutcome
from tests.support.dashboards import BUILT_IN, FILES, GRAFANA, VARIABLE, dashboards, panels, queries
from tests.support.shipped import ALERTS

with warnings.catch_warnings():
    # It prefers the schema of Grafana 13, which older ones cannot read.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.models import dashboard as schema

DASHBOARDS = dashboards()
UIDS = [dashboard["uid"] for dashboard in DASHBOARDS]
each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=UIDS)

DOCS = (ROOT / "docs" / "grafana.md").read_text(encoding="utf-8")
# Of Grafana itself, and neither old nor in need of a plugin.
CURRENT_PANELS = {"row", "stat", "state-timeline", "table", "timeseries"}
PROMETHEUS_OWN = {
    *("ALERTS", "ALERTS_FOR_STATE", "up"),
    *("prometheus_notifications_errors_total", "prometheus_notifications_dropped_total"),
    *("alertmanager_notifications_failed_total", "alertmanager_notifications_total"),
}


def differences(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """Return the places of what the schema does not know or understands differently."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from differences(value, theirs[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} is unknown"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(our, their, f"{path}[{index}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


@each_dashboard
def test_it_is_of_grafanas_published_schema(dashboard: dict[str, Any]) -> None:
    """Read into the schema's own types and written again, everything is still there."""
    register_default_plugins()
    read = schema.Dashboard.from_json(json.loads(json.dumps(dashboard)))
    again = json.loads(JSONEncoder().encode(read))
    assert not list(differences(dashboard, again, dashboard["uid"]))
    assert dashboard["schemaVersion"] == schema.Dashboard().schema_version


@each_dashboard
def test_it_needs_no_old_panel_and_no_plugin(dashboard: dict[str, Any]) -> None:
    assert {panel["type"] for panel in panels(dashboard)} <= CURRENT_PANELS


@each_dashboard
def test_every_panel_explains_itself(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        assert panel["title"]
        if panel["type"] != "row":
            assert len(panel["description"]) > 20, panel["title"]
            defaults = panel["fieldConfig"]["defaults"]
            # What it says where there is nothing, and what its numbers are.
            assert defaults["noValue"], panel["title"]
            assert panel["type"] == "state-timeline" or defaults["unit"], panel["title"]


@each_dashboard
def test_panels_have_ids_queries_and_places_of_their_own(dashboard: dict[str, Any]) -> None:
    shown = list(panels(dashboard))
    assert len({panel["id"] for panel in shown}) == len(shown)
    letters = [(p["id"], target["refId"]) for p in shown for target in p.get("targets", [])]
    assert len(letters) == len(set(letters))
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in shown)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@each_dashboard
def test_it_uses_the_variables_that_it_has(dashboard: dict[str, Any]) -> None:
    used = {found["long"] or found["short"] for found in VARIABLE.finditer(json.dumps(dashboard))}
    given = {name for name in used if name.startswith(("__data.", "__field."))}
    defined = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert used - given - set(BUILT_IN) - {"__all", "__url_time_range"} == set(defined)
    assert len(defined) == len(set(defined))


@each_dashboard
def test_a_name_with_an_apostrophe_finds_its_series(dashboard: dict[str, Any]) -> None:
    """Grafana puts a backslash before one, unless it is told to quote the value itself."""
    single = [v["name"] for v in dashboard["templating"]["list"] if v.get("multi") is False]
    for query in queries(dashboard):
        assert not re.search(rf'"\$({"|".join(single)})"', query.expression), query


@each_dashboard
def test_it_asks_the_chosen_prometheus(dashboard: dict[str, Any]) -> None:
    def sources(node: Any) -> Iterator[dict[str, str]]:
        if isinstance(node, dict):
            if "datasource" in node:
                yield node["datasource"]
            node = list(node.values())
        for item in node if isinstance(node, list) else ():
            yield from sources(item)

    grafana = {"type": "grafana", "uid": "-- Grafana --"}
    found = [source for source in sources(dashboard) if source != grafana]
    assert found
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in found)


@each_dashboard
def test_its_links_lead_to_the_other_one_and_to_the_hooks_page(dashboard: dict[str, Any]) -> None:
    urls = re.findall(r'"url": "([^"]+)"', json.dumps(dashboard))
    inside = {url.split("/d/")[1].split("?")[0] for url in urls if url.startswith("/d/")}
    assert inside == set(UIDS) - {dashboard["uid"]}
    outside = {url for url in urls if not url.startswith("/d/")}
    runbook = "${hook:raw}/docs/runbook/"
    assert runbook in [link["url"] for link in dashboard["links"]]
    assert outside <= {
        runbook,
        "${hook:raw}/",
        "${hook:raw}/channels/${channel:percentencode}?gateway=${gateway:percentencode}",
        (
            "${hook:raw}/channels/${__data.fields.Channel:percentencode}"
            "?gateway=${__data.fields.Gateway:percentencode}"
        ),
    }
    assert any("/channels/" in url for url in outside)


@each_dashboard
def test_alerts_are_marked_in_its_graphs(dashboard: dict[str, Any]) -> None:
    shown = {each["name"]: each["enable"] for each in dashboard["annotations"]["list"]}
    assert shown["Alerts"]


def test_the_guide_names_panels_and_columns_as_they_are() -> None:
    shown = "".join(path.read_text(encoding="utf-8") for path in FILES)
    for quoted in re.findall(r'"([A-Z][^"`]+)"', DOCS):
        assert f'"{quoted}"' in shown, quoted


def test_there_are_two_whose_uid_is_the_files_name_so_that_links_last() -> None:
    assert [path.stem for path in FILES] == UIDS == ["zapwatch-channel", "zapwatch-overview"]


@each_dashboard
def test_every_metric_and_alert_in_it_exists(dashboard: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^\| `(whatsapp_\w+)`", page, re.MULTILINE))
    known |= {name + end for name in known for end in ("_bucket", "_count", "_sum")}
    alerts = {alert.name for alert in ALERTS}
    for query in queries(dashboard):
        bare = re.sub(r'"[^"]*"', '""', query.expression)
        named = set(re.findall(r"\b(?:\w+_notifications_\w+|whatsapp_\w+|ALERTS\w*|up)\b", bare))
        assert named, query
        assert named <= known | PROMETHEUS_OWN, query
        assert set(re.findall(r'alertname="(\w+)"', query.expression)) <= alerts, query


@each_dashboard
def test_every_outcome_has_a_colour(dashboard: dict[str, Any]) -> None:
    text = json.dumps(dashboard)
    assert all(f'"{outcome}"' in text for outcome in Outcome)
    of_echoes = set(ProbeOutcome) - {ProbeOutcome.DELIVERY_BROKEN}
    assert all(f'"echo: {outcome}"' in text for outcome in of_echoes)
    assert f'"delivery: {ProbeOutcome.DELIVERY_BROKEN}"' in text
    assert all(f'"audit: {result}"' in text for result in AuditResult)
    assert all(f'"delivery: {result}"' in text for result in Replay if result != Replay.SENDING)


def test_grafana_finds_what_the_guide_says_where_to_put() -> None:
    (provider,) = _provisioned("dashboards")["providers"]
    assert provider["type"] == "file"
    assert f"grafana/dashboards/*.json {provider['options']['path']}/" in DOCS
    (source,) = _provisioned("datasources")["datasources"]
    assert source["type"] == "prometheus"
    for dashboard in DASHBOARDS:
        (chosen,) = (v for v in dashboard["templating"]["list"] if v["type"] == "datasource")
        assert chosen["current"] == {"text": source["name"], "value": source["uid"]}
    scraping = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraping["scrape_interval"]


def _provisioned(kind: str) -> Any:
    return yaml.safe_load((GRAFANA / "provisioning" / kind / "zapwatch.yaml").read_text())


def test_both_ask_the_hook_for_the_address_of_its_page() -> None:
    asked = {
        variable["query"]["query"]
        for dashboard in DASHBOARDS
        for variable in dashboard["templating"]["list"]
        if variable["name"] == "hook"
    }
    assert asked == {"label_values(whatsapp_page_info, url)"}
