"""Back-test of adaptive silence thresholds: lost messages and false alarms, against fixed hours.

    python -m benchmarks.silence [CHANNELS [SEED]]

Ten weeks of traffic of eight kinds of channels (benchmarks/silence_traffic.py). The last six weeks
are the test: at the start of each, the method learns from the 28 days before, with their zombies
and holidays, and is tested on zombies at random times and on the healthy gaps of that week. The
exporter learns daily, so this test is harder.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.silence_traffic import (
    BEGINS,
    BUSY,
    KINDS,
    QUIET,
    WEEKS,
    ZONE,
    make_channel,
    make_outages,
    without,
)
from exporter.silence.model import Bounds, Learned, learn
from zapwatch.messages.history import History

CHANNELS = 200
SEED = 20260209
WEEK = 7 * 86400.0
TRAIN_WEEKS = 4
_ZOMBIES = 60  # a channel, each judged separately, so that every hour of the week has one
_MONTH = 30.4 * 86400
_HOUR = 3600.0
FLOOR, CEILING = 600.0, 26 * _HOUR
_KNOBS = (0.5, 1, 2, 4, 8, 16, 32)
_FIXED_HOURS = (0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 24)

Threshold = Callable[[float], float]  # time of a message to normal seconds of silence


@dataclass
class Channel:
    """One channel: all messages, the received ones, outages, and the test's zombies."""

    kind: str
    sent: list[float]
    heard: list[float]
    outages: list[tuple[float, float]]
    zombies: list[float]


@dataclass
class Outcome:
    """Result of one way of judging silence on some channels."""

    lost: list[int] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    false_alarms: int = 0
    seconds: float = 0.0

    def add(self, other: Outcome) -> None:
        """Add another outcome's figures."""
        self.lost += other.lost
        self.delays += other.delays
        self.false_alarms += other.false_alarms
        self.seconds += other.seconds

    @property
    def per_month(self) -> float:
        """False alarms per channel and month."""
        return self.false_alarms / self.seconds * _MONTH

    def __str__(self) -> str:
        return (
            f"lost {statistics.median(self.lost):6.1f} median {_p90(self.lost):7.1f} p90   "
            f"delay {statistics.median(self.delays) / _HOUR:5.2f} h median "
            f"{_p90(self.delays) / _HOUR:5.1f} h p90   "
            f"false alarms {self.per_month:6.2f}"
        )


def main() -> None:
    """Run the benchmark and print the results."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else CHANNELS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    print(f"{count} channels, seed {seed}, {_ZOMBIES} zombies each in {WEEKS - TRAIN_WEEKS} weeks")
    channels = [make(number, seed) for number in range(count)]
    started = time.perf_counter()
    ways = judge_all(channels)
    print(f"learned and judged in {time.perf_counter() - started:.0f} s\n")
    _print_kinds(channels, ways)
    _print_curve(channels, ways)


def judge_all(channels: Sequence[Channel]) -> dict[str, list[Outcome]]:
    """Return the outcome of each way of judging silence on each channel."""
    ways: dict[str, list[Outcome]] = {
        f"fixed {hours:g} h": [_judge(c, _fixed(hours)) for c in channels] for hours in _FIXED_HOURS
    }
    for knob in _KNOBS:
        ways[f"adaptive {knob:g}"] = _adaptive(channels, Bounds(knob, FLOOR, CEILING))
    ways["adaptive 1, to 72 h"] = _adaptive(channels, Bounds(1, FLOOR, 72 * _HOUR))
    return ways


def make(number: int, seed: int = SEED) -> Channel:
    """Return one channel; eight consecutive ones have one of each kind."""
    kind = KINDS[number % len(KINDS)]
    chance = random.Random(f"{seed} {number}")
    sent = make_channel(kind, chance)
    outages = make_outages(chance)
    begins = BEGINS.timestamp() + TRAIN_WEEKS * WEEK
    # At least a day before the end, so that losses up to the ceiling can be counted.
    zombies = [
        begins + chance.random() * ((WEEKS - TRAIN_WEEKS) * WEEK - 3 * 86400)
        for _ in range(_ZOMBIES)
    ]
    heard = without(sent, outages)
    return Channel(kind.name, sent, heard, outages, zombies)


def _adaptive(channels: Sequence[Channel], bounds: Bounds) -> list[Outcome]:
    """Learn week by week; 4 hours apply to channels that cannot be learned."""
    outcomes = [Outcome() for _ in channels]
    for week in range(TRAIN_WEEKS, WEEKS):
        begins = BEGINS.timestamp() + week * WEEK
        learned = learn(
            {str(number): history_of(c.heard, begins) for number, c in enumerate(channels)},
            bounds,
            ZONE,
        )
        for number, channel in enumerate(channels):
            of_one = learned.get(str(number))
            way = _fixed(4) if of_one is None else _learned(of_one, bounds)
            outcomes[number].add(_judge(channel, way, begins, begins + WEEK))
    return outcomes


def _fixed(hours: float) -> Threshold:
    return lambda _at: hours * _HOUR


def _learned(learned: Learned, bounds: Bounds) -> Threshold:
    return lambda at: learned.threshold(at, bounds, ZONE)


def history_of(heard: Sequence[float], ends: float) -> History:
    """Return the history of the 28 days before ``ends``."""
    history = History(ends - 1)
    for at in heard[bisect_left(heard, history.begins) : bisect_left(heard, ends)]:
        history.note(at)
    return history


def _judge(
    channel: Channel,
    threshold: Threshold,
    begins: float = BEGINS.timestamp() + TRAIN_WEEKS * WEEK,
    ends: float = BEGINS.timestamp() + WEEKS * WEEK,
) -> Outcome:
    outcome = Outcome(seconds=ends - begins)
    heard, sent = channel.heard, channel.sent
    # The last gap of a week ends in the next one.
    last = min(bisect_left(heard, ends), len(heard) - 1)
    for number in range(bisect_left(heard, begins), last):
        at, following = heard[number], heard[number + 1]
        healthy = not any(start < following and at < end for start, end in channel.outages)
        # No threshold is below the floor, so most gaps can be skipped.
        if healthy and following - at > FLOOR and following - at > threshold(at):
            outcome.false_alarms += 1
    for zombie in channel.zombies:
        already = any(start <= zombie < end for start, end in channel.outages)
        if begins <= zombie < ends and not already:
            before = bisect_right(heard, zombie) - 1
            # A false alarm may already fire.
            detected = max(zombie, heard[before] + threshold(heard[before]))
            outcome.delays.append(detected - zombie)
            outcome.lost.append(bisect_right(sent, detected) - bisect_right(sent, zombie))
    return outcome


def _print_kinds(channels: Sequence[Channel], ways: dict[str, list[Outcome]]) -> None:
    adaptive = total(channels, ways["adaptive 1"], None).per_month
    within = [w for w in ways if w.startswith("fixed")]
    best = min(within, key=lambda w: abs(total(channels, ways[w], None).per_month - adaptive))
    print(f"Best single fixed threshold with about as many false alarms as adaptive 1: {best}\n")
    shown = ("fixed 4 h", best, "adaptive 1", "adaptive 1, to 72 h")
    groups: list[tuple[str, set[str] | None]] = [(kind.name, {kind.name}) for kind in KINDS]
    groups += [("busy", BUSY), ("quiet", QUIET), ("all", None)]
    for name, kinds in groups:
        print(name)
        for way in dict.fromkeys(shown):
            print(f"  {way:20} {total(channels, ways[way], kinds)}")


def _print_curve(channels: Sequence[Channel], ways: dict[str, list[Outcome]]) -> None:
    print("\nTrade-off: false alarms per channel and month against messages lost, on all channels")
    print("and on the busy ones")
    for way, outcomes in ways.items():
        busy, everything = total(channels, outcomes, BUSY), total(channels, outcomes, None)
        print(
            f"  {way:20} {everything.per_month:7.2f} false alarms, "
            f"lost {statistics.mean(everything.lost):6.1f} mean   "
            f"busy: {busy.per_month:6.2f} false alarms, lost "
            f"{statistics.median(busy.lost):5.0f} median {statistics.mean(busy.lost):6.1f} mean"
        )


def total(channels: Sequence[Channel], outcomes: list[Outcome], kinds: set[str] | None) -> Outcome:
    """Return the outcome on all channels of these kinds; None is all kinds."""
    found = Outcome()
    for channel, outcome in zip(channels, outcomes, strict=True):
        if kinds is None or channel.kind in kinds:
            found.add(outcome)
    return found


def _p90(values: Sequence[float]) -> float:
    return sorted(values)[int(0.9 * (len(values) - 1))]


if __name__ == "__main__":
    main()
