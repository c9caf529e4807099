"""Clients of Prometheus and Alertmanager: what they answer becomes types, failures SourceError."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3

from whatsapp.deadline import DeadlineAdapter

_CONNECT_SECONDS = 1.0
_MAX_BYTES = 64 * 1024 * 1024


class SourceError(Exception):
    """No answer, or none that can be used. ``str()`` is one short line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The value of one series at one moment."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one series over time, as (Unix seconds, value)."""

    labels: Mapping[str, str]
    values: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class FiringAlert:
    """An alert that fires now."""

    name: str
    labels: Mapping[str, str]
    summary: str
    runbook_url: str
    """Empty where there is none that a browser may follow."""


class Source:
    """Gets JSON from one server; safe to share between threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, DeadlineAdapter(pool_maxsize=8))

    def get(self, path: str, seconds: float, **parameters: str) -> Any:
        """Return the JSON that a path answers within so many seconds; raise SourceError."""
        timeout = (min(_CONNECT_SECONDS, seconds), seconds)
        try:
            with self._http.get(
                self.url + path,
                params=parameters,
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = response.raw.read(_MAX_BYTES + 1, decode_content=True)
                if not response.ok or len(body) > _MAX_BYTES:
                    raise SourceError(f"HTTP {response.status_code}")
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise SourceError(type(error).__name__) from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise SourceError("an answer that is not JSON") from None


class Prometheus:
    """Asks one Prometheus; each method raises SourceError."""

    def __init__(self, url: str) -> None:
        self._source = Source(url)

    def now(self, query: str, seconds: float) -> list[Sample]:
        """Return the samples of a query at this moment."""
        found = []
        for entry in self._result("query", seconds, query=query):
            at_value = _points([entry.get("value")])
            if at_value:
                found.append(Sample(_texts(entry.get("metric")), at_value[0][1]))
        return found

    def over_time(
        self, query: str, start: float, end: float, step: int, seconds: float
    ) -> list[Series]:
        """Return a query's values from ``start`` to ``end`` (Unix seconds), ``step`` s apart."""
        result = self._result(
            "query_range", seconds, query=query, start=f"{start}", end=f"{end}", step=f"{step}"
        )
        return [Series(_texts(one.get("metric")), _points(one.get("values"))) for one in result]

    def firing(self, seconds: float) -> list[FiringAlert]:
        """Return the alerts that fire now."""
        alerts = self._list("alerts", "alerts", seconds)
        return [_alert(one) for one in alerts if one.get("state") == "firing"]

    def _result(self, path: str, seconds: float, **parameters: str) -> list[dict[str, Any]]:
        return self._list(path, "result", seconds, **parameters)

    def _list(
        self, path: str, field: str, seconds: float, **parameters: str
    ) -> list[dict[str, Any]]:
        """Return the objects in a field of the data that a path answers."""
        answer = self._source.get(f"/api/v1/{path}", seconds, **parameters)
        data = answer.get("data") if isinstance(answer, dict) else None
        entries = data.get(field) if isinstance(data, dict) else None
        if not isinstance(entries, list):
            raise SourceError(f"an answer without {field}")
        return [one for one in entries if isinstance(one, dict)]


class Alertmanager:
    """Asks one Alertmanager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._source = Source(url)

    def answers(self, seconds: float) -> bool:
        """Whether it runs."""
        try:
            self._source.get("/api/v2/status", seconds)
        except SourceError:
            return False
        return True


def quoted(text: str) -> str:
    """Return a text as PromQL and Alertmanager's matchers write it."""
    return json.dumps(text, ensure_ascii=False)


def _alert(entry: dict[str, Any]) -> FiringAlert:
    labels, notes = _texts(entry.get("labels")), _texts(entry.get("annotations"))
    runbook = notes.get("runbook_url", "")
    return FiringAlert(
        labels.get("alertname", ""),
        labels,
        notes.get("summary", ""),
        runbook if runbook.startswith(("https://", "http://")) else "",
    )


def _texts(found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _points(found: Any) -> tuple[tuple[float, float], ...]:
    points = []
    for one in found if isinstance(found, list) else ():
        try:
            at, value = float(one[0]), float(one[1])
        except (TypeError, ValueError, LookupError):
            continue
        if math.isfinite(at) and math.isfinite(value):
            points.append((at, value))
    return tuple(points)
