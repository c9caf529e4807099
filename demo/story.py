"""The demonstration's story: a drop, a zombie, a lost pairing, and a channel that is only quiet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import requests

from demo.events import Event, Events
from demo.loop import get
from demo.simulator.client import Simulator

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
        Part(_QUIET_CHANNEL, "falls quiet, but is well", "quieten", "WhatsAppChannelSuspect"),
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
        until = time.monotonic() + _STORY_SECONDS
        while not all(part.is_over for part in self.parts):
            self._pause(until, "the end of the story")
            for event in self.events.new(time.time()):
                self._take(event)
            self._look_at_calls()
            self._look_at_probe()
            for part in self.parts:
                self._scan_if_due(part)

    def table(self) -> str:
        """Return a table of each channel's failure and times in seconds."""
        header = ("channel", "what happened", "detected", "getQr", "repaired")
        rows = [
            (part.channel, part.happened, *map(_s, (part.detected, part.asked, part.repaired)))
            for part in self.parts
        ]
        rows.append((HEALTHY_CHANNEL, "nothing, and nothing was done", "-", "-", "-"))
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        head = "  ".join(c.ljust(w) for c, w in zip(header, widths, strict=True))
        return "\n".join([head, "  ".join("-" * width for width in widths), *lines])

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

    @staticmethod
    def _tell(seconds: float, channel: str, text: str) -> None:
        print(f"{max(0.0, seconds):7.1f} s  {channel:16}  {text}", flush=True)


def _s(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
