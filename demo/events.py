"""Live events of the loop: alerts from Alertmanager, repairs from the log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from demo.loop import get

_PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')


@dataclass(frozen=True, slots=True)
class Event:
    """One event: ``what`` is an alert's name or an outcome; ``at`` is in Unix seconds."""

    at: float
    kind: str
    """``fires``, ``resolved`` or ``repair``."""
    channel: str
    what: str
    line: str = ""


class Events:
    """Returns each event once; not thread-safe."""

    def __init__(self, alertmanager_url: str, log_file: Path) -> None:
        self._url = f"{alertmanager_url}/api/v2/alerts"
        self._log_file = log_file
        self._position = log_file.stat().st_size if log_file.exists() else 0
        self._firing: dict[tuple[str, str], Event] = {}

    def new(self, now: float) -> list[Event]:
        """Return the events since the last call; ``now`` is the current Unix time."""
        return [*self._alerts(now), *self._repairs(now)]

    def _alerts(self, now: float) -> list[Event]:
        try:
            listed = get(self._url).json()
        except (requests.RequestException, ValueError):
            return []
        firing = {}
        for alert in listed:
            event = _alert_event(alert, now)
            if event.what == "Watchdog":
                continue  # the heartbeat always fires
            firing[event.channel, event.what] = event
        new = [event for key, event in firing.items() if key not in self._firing]
        gone = [
            Event(now, "resolved", event.channel, event.what)
            for key, event in self._firing.items()
            if key not in firing
        ]
        self._firing = firing
        return new + gone

    def _repairs(self, now: float) -> list[Event]:
        if not self._log_file.exists():
            return []
        with self._log_file.open(encoding="utf-8") as file:
            if self._log_file.stat().st_size < self._position:
                self._position = 0  # logrotate has replaced the file
            file.seek(self._position)
            text = file.read()
            complete = text[: text.rfind("\n") + 1]
            self._position += len(complete.encode())
        return [event for line in complete.splitlines() if (event := _repair_event(line, now))]


def _alert_event(alert: dict[str, Any], now: float) -> Event:
    labels = alert["labels"]
    at = min(now, datetime.fromisoformat(alert["startsAt"]).timestamp())
    return Event(at, "fires", labels.get("channel", ""), labels.get("alertname", ""))


def _repair_event(line: str, now: float) -> Event | None:
    values = {name: _unquoted(value) for name, value in _PAIR.findall(line)}
    if "outcome" not in values:
        return None
    return Event(now, "repair", values.get("channel", ""), values["outcome"], line)


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
