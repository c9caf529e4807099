"""The demonstration's story, and the events of the loop: alerts, and repairs from the log.

The story: a drop, a zombie, a lost pairing, and a channel that is only quiet.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import requests

from demo.loop import get
from demo.simulator.client import Simulator

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
                continue  # the heartbeat's, while all is well
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


SILENT_SECONDS = 25.0
"""Silence threshold of the story's channels: hours would make a long story."""

ASK_SECONDS = 10.0
"""Seconds without a message until a channel is probed."""

HEALTHY_CHANNEL = "atendimento"
"""Stays healthy throughout; the loop must not report it."""

_QUIET_CHANNEL = "Obra Norte"
_PAUSE = 0.25
_PREPARED_SECONDS = 60.0
_STORY_SECONDS = 300.0
_SCAN_SECONDS = 15.0  # until the story's operator has read the alert and found the phone


@dataclass
class Part:
    """One channel's part; times in seconds since the story began, None until they happen."""

    channel: str
    happened: str
    action: str
    alert: str
    needs_scan: bool = False
    detected: float | None = None
    asked: float | None = None
    repaired: float | None = None
    scan_at: float | None = None
    resolved: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the alert has ended, and the hook has logged the outcome of its repair."""
        return self.resolved and (self.asked is None or self.repaired is not None)


def _parts() -> list[Part]:
    disconnected = "WhatsAppChannelDisconnected"
    return [
        Part("pixel12digital", "session dropped", "drop", disconnected),
        Part("imobsites", "zombie: connected, no message", "zombie", "WhatsAppChannelSilent"),
        Part("Loja Centro", "pairing lost, QR code", "unpair", disconnected, needs_scan=True),
        Part(_QUIET_CHANNEL, "goes quiet, but works", "quieten", "WhatsAppChannelSuspect"),
    ]


def make_channels(simulator: Simulator) -> dict[str, str]:
    """Create the story's channels; return the settings of their probes."""
    for channel in (HEALTHY_CHANNEL, *(part.channel for part in _parts())):
        simulator.put_channel(channel, reconnect_seconds=2.0)
    simulator.put_channel(_parts()[0].channel, initializing_answers=1)
    asked = (HEALTHY_CHANNEL, _QUIET_CHANNEL)
    return {
        "PROBE": "echo",
        "PROBE_AFTER_MINUTES": str(ASK_SECONDS / 60),
        "PROBE_ECHO_NUMBERS": ",".join(f"{one}={simulator.number(one)}" for one in asked),
        # On a slow machine it could otherwise count as silent before the probe.
        "SILENT_HOURS_OVERRIDES": f"{_QUIET_CHANNEL}=4",
    }


@dataclass
class Story:
    """Plays on a simulator beside a running loop; prints each event with its seconds."""

    simulator: Simulator
    events: Events
    prometheus_url: str
    check: Callable[[], None]
    """Raises if one of the loop's programs has ended."""
    parts: list[Part] = field(default_factory=_parts)
    _began: float = 0.0
    _proved: bool = False
    _told: list[tuple[float, str, str]] = field(default_factory=list)

    def prepare(self) -> None:
        """Wait until Prometheus has the age of each channel's last message."""
        until = time.monotonic() + _PREPARED_SECONDS
        query = "count(whatsapp_channel_seconds_since_last_heard)"
        while self._value(query) != len(self.parts) + 1:
            self._pause(until, "Prometheus to see all channels")

    def play(self) -> None:
        """Trigger all failures at once, and wait until every channel is healthy again."""
        self._began = time.time()
        for part in self.parts:
            getattr(self.simulator, part.action)(part.channel)
            self._tell(0.0, part.channel, part.happened)
        self._print()
        until = time.monotonic() + _STORY_SECONDS
        while not all(part.is_over for part in self.parts):
            self._pause(until, "the end of the story")
            for event in self.events.new(time.time()):
                self._take(event)
            self._look_at_calls()
            self._look_at_probe()
            for part in self.parts:
                self._scan_if_due(part)
            self._print()

    def table(self) -> str:
        """Return a table of each channel's failure and times in seconds."""
        header = ("channel", "what happened", "detected", "getQr", "repaired")
        rows = [
            (part.channel, part.happened, *map(_s, (part.detected, part.asked, part.repaired)))
            for part in self.parts
        ]
        rows.append((HEALTHY_CHANNEL, "no fault, no repair", "-", "-", "-"))
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        lines = (header, ["-" * width for width in widths], *rows)
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def _look_at_calls(self) -> None:
        for call in self.simulator.requests("qr"):
            for part in self.parts:
                seconds = call["epoch"] - self._began
                if call["channel"] == part.channel and part.asked is None and seconds >= 0:
                    part.asked = seconds
                    self._tell(seconds, part.channel, "getQr called by the hook")

    def _look_at_probe(self) -> None:
        query = f'whatsapp_channel_probe_success{{channel="{_QUIET_CHANNEL}"}}'
        if not self._proved and self._value(query) == 1:
            self._proved = True
            seconds = time.time() - self._began
            self._tell(seconds, _QUIET_CHANNEL, f"receives the echo of {HEALTHY_CHANNEL}: it works")
            self.simulator.quieten(_QUIET_CHANNEL, quiet=False)

    def _take(self, event: Event) -> None:
        seconds = event.at - self._began
        part = next((p for p in self.parts if p.channel == event.channel), None)
        if event.kind == "repair":
            self._tell(seconds, event.channel, f"outcome {event.what}")
        else:
            verb = "fires" if event.kind == "fires" else "is resolved"
            self._tell(seconds, event.channel, f"{event.what} {verb}")
        if part is None:
            return
        if event.kind == "fires" and event.what == part.alert and part.detected is None:
            part.detected = seconds
        if event.kind == "fires" and event.what == "WhatsAppChannelNeedsQrScan":
            part.scan_at = event.at + _SCAN_SECONDS
        if event.kind == "repair" and event.what in {"reconnected", "recovered"}:
            part.repaired = part.repaired or seconds
        if event.kind == "resolved" and event.what == part.alert:
            part.resolved = not part.needs_scan or part.repaired is not None or self._is_well(part)

    def _is_well(self, part: Part) -> bool:
        state = self.simulator.channel(part.channel)
        return state is not None and bool(state["alive"])

    def _scan_if_due(self, part: Part) -> None:
        if part.scan_at is not None and time.time() >= part.scan_at:
            part.scan_at = None
            self.simulator.scan(part.channel)
            part.repaired = time.time() - self._began
            self._tell(part.repaired, part.channel, "a person scans the QR code")

    def _value(self, query: str) -> float | None:
        try:
            answer = get(f"{self.prometheus_url}/api/v1/query?query={query}").json()
            return float(answer["data"]["result"][0]["value"][1])
        except (requests.RequestException, LookupError, ValueError):
            return None

    def _pause(self, until: float, what: str) -> None:
        self.check()
        if time.monotonic() > until:
            raise TimeoutError(f"waited too long for {what}")
        time.sleep(_PAUSE)

    def _tell(self, seconds: float, channel: str, text: str) -> None:
        self._told.append((max(0.0, seconds), channel, text))

    def _print(self) -> None:
        """Print what was told since the last call, in order of time."""
        for seconds, channel, text in sorted(self._told, key=itemgetter(0)):
            print(f"{seconds:7.1f} s  {channel:16}  {text}", flush=True)
        self._told.clear()


def _s(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
