"""The shipped dashboards as data, and all their queries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from demo.configuration import ROOT

GRAFANA = ROOT / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))

# Grafana's built-in variables, for a short time range.
BUILT_IN = {"__interval": "15s", "__rate_interval": "1m", "__range": "10m"}
VARIABLE = re.compile(r"\$\{(?P<long>\w[\w.]*)(?::(?P<format>\w+))?\}|\$(?P<short>\w+)")


@dataclass(frozen=True)
class Query:
    """One expression of a dashboard; ``where`` describes its place."""

    where: str
    expression: str
    instant: bool

    def filled(self, values: Mapping[str, str]) -> str:
        """Return the expression with the variables replaced by their values."""
        known = {**BUILT_IN, **values}

        def value(found: re.Match[str]) -> str:
            text = known[found["long"] or found["short"]]
            return json.dumps(text) if found["format"] == "doublequote" else text

        return VARIABLE.sub(value, self.expression)


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in FILES]


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all panels, including rows and the panels in collapsed ones."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries(dashboard: dict[str, Any]) -> Iterator[Query]:
    """Yield the expressions of all panels, annotations and variables."""
    title = dashboard["title"]
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            where = f"{title} / {panel['title']} / {target['refId']}"
            yield Query(where, target["expr"], target["instant"])
    for annotation in dashboard["annotations"]["list"]:
        if "target" in annotation:
            where = f"{title} / annotation {annotation['name']}"
            yield Query(where, annotation["target"]["expr"], instant=False)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            # label_values(selector, label) lists the groups of this expression.
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert found, variable["query"]
            expression = f"group by ({found[2]}) ({found[1]})"
            yield Query(f"{title} / variable {variable['name']}", expression, instant=False)
