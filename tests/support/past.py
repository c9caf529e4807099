"""Backfill for Prometheus: the samples that a week of operation would have produced."""

from __future__ import annotations

import math
import random
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_STEP = 60  # seconds between two samples
_WEEK = 7 * 86400


@dataclass(frozen=True, slots=True)
class PastProblem:
    """A problem in the past: its start in hours ago, its duration, and whether it was a silence."""

    hours_ago: float
    hours: float
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Past:
    """One channel's week."""

    channel: str
    per_hour: float
    """Messages in a busy hour."""
    troubles: Sequence[PastProblem] = ()

    @property
    def labels(self) -> str:
        """The labels of the channel's series, at the gateway ``wpp``."""
        return f'gateway="wpp",channel="{self.channel}"'


def write_past(folder: Path, now: float, pasts: Sequence[Past]) -> None:
    """Write TSDB blocks up to ``now`` into ``folder``, the data folder of a Prometheus."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder.parent / "past.txt"
    text.write_text("".join(f"{line}\n" for line in _lines(now, pasts)))
    # promtool reads all of the text for each block; without the option there are 84 blocks.
    command = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=24h", "openmetrics"]
    command += [str(text), str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    text.unlink()


def _lines(now: float, pasts: Sequence[Past]) -> Iterator[str]:
    times = [now - seconds for seconds in range(_WEEK, 0, -_STEP)]
    connected = "whatsapp_channel_connected"
    for name, step in ((connected, 1), (f"gateway_channel:{connected}:avg5m", 300 // _STEP)):
        yield f"# TYPE {name} gauge"
        for past in pasts:
            yield from (
                f"{name}{{{past.labels}}} {int(not _is_down(past, now - at))} {at:.0f}"
                for at in times[::step]
            )
    yield "# TYPE ALERTS gauge"
    for past in pasts:
        labels = f'{past.labels},alertname="WhatsAppChannelSilent",alertstate="firing"'
        for at in times:
            if any(one.silent for one in _during(past, now - at)):
                yield f"ALERTS{{{labels}}} 1 {at:.0f}"
    yield "# TYPE whatsapp_channel_messages counter"
    chance = random.Random(7)
    for past in pasts:
        for direction, share in (("in", 0.62), ("out", 0.38)):
            labels = f'{past.labels},direction="{direction}"'
            total = 0.0
            for at in times:
                if not _during(past, now - at):
                    mean = past.per_hour * share * _business(at) * _STEP / 3600
                    total += int(mean * chance.uniform(0.4, 1.6) + chance.random())
                yield f"whatsapp_channel_messages_total{{{labels}}} {total:.0f} {at:.0f}"
    yield "# EOF"


def _during(past: Past, seconds_ago: float) -> list[PastProblem]:
    hours = seconds_ago / 3600
    return [one for one in past.troubles if one.hours_ago - one.hours <= hours <= one.hours_ago]


def _is_down(past: Past, seconds_ago: float) -> bool:
    return any(not one.silent for one in _during(past, seconds_ago))


def _business(at: float) -> float:
    """Return the load from 0 to 1: highest at noon, low at night, lower at weekends."""
    hour = (at / 3600 - 3) % 24  # São Paulo time
    day = int((at / 3600 - 3) / 24 + 3) % 7  # Monday is 0
    busy = max(0.03, math.sin((hour - 6) / 15 * math.pi)) if 6 < hour < 21 else 0.03
    return busy * (0.4 if day >= 5 else 1.0)
