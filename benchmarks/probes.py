"""Back-test of probes: messages lost to zombies, needless reconnections, echoes sent.

    python -m benchmarks.probes [CHANNELS [SEED]]

Channels, learning and testing are those of benchmarks/silence.py. There are three kinds of zombie:
its socket is dead, which a query detects; its delivery is broken, so that its gateway receives
messages that do not arrive, and a reconnection is useless; or it is deaf: a query passes, it
receives nothing, and only an echo detects it. Healthy channels pass every probe. Alerts, polls and
lost echoes have realistic durations, and the limits apply: a probe every 15 minutes, 24 echoes a
day, half of them for other channels. An operator repairs a delivery as soon as notified.
"""

from __future__ import annotations

import enum
import itertools
import math
import statistics
import sys
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.silence import (
    CEILING,
    CHANNELS,
    FLOOR,
    SEED,
    TRAIN_WEEKS,
    WEEK,
    Channel,
    history_of,
    make,
)
from benchmarks.silence_traffic import BEGINS, BUSY, KINDS, QUIET, WEEKS, ZONE
from exporter.silence.model import Bounds, Learned, learn

_HOUR = 3600.0
_DAY = 86400.0
_MONTH = 30.4 * _DAY
_BOUNDS = Bounds(1, FLOOR, CEILING)
_PAUSE = 900.0
_ECHOES_PER_DAY = 12  # for a channel; it sends as many for others
_ALERT_SECONDS = 30.0  # from the log to the hook
_QUERY_SECONDS = 90.0  # two failures, a minute apart
_BLAME_SECONDS = 150.0  # a lost echo, and the next one for the diagnosis
_LATE_SECONDS = 60.0  # after which a message that has not arrived counts as missing
_STILL_SECONDS = _DAY  # of repairs, then operators are notified that a channel stays silent
_REPAIRS = (0.0, 300.0, 900.0, 2100.0, 4500.0)  # seconds, then hourly
_FAILING_SECONDS = 900.0  # of repairs whose verification fails, then operators are notified
_FAILING_REPAIRS = 3

Rule = Callable[[float], float]


class Zombie(enum.Enum):
    """Cause of a zombie."""

    SOCKET = "socket dead"
    DELIVERY = "delivery broken"
    DEAF = "deaf"


@dataclass
class Way:
    """A policy for one channel in one week: silence threshold and probe threshold."""

    silent: Rule
    suspect: Rule | None = None
    compares: bool = False
    echo: bool = False


@dataclass
class Outcome:
    """Result of a policy."""

    lost: list[int] = field(default_factory=list)
    in_vain: int = 0
    """Reconnections of zombies without effect."""
    alarms: int = 0
    probes: int = 0
    sent: int = 0
    seconds: float = 0.0

    def add(self, other: Outcome) -> None:
        """Add another outcome's figures."""
        self.lost += other.lost
        self.in_vain += other.in_vain
        self.alarms += other.alarms
        self.probes += other.probes
        self.sent += other.sent
        self.seconds += other.seconds

    def __str__(self) -> str:
        days = self.seconds / _DAY
        p90 = sorted(self.lost)[int(0.9 * (len(self.lost) - 1))]
        return (
            f"lost {statistics.median(self.lost):6.1f} median {p90:7.1f} p90 "
            f"{statistics.mean(self.lost):7.1f} mean   in vain a zombie "
            f"{self.in_vain / len(self.lost):6.2f}   getQr on healthy a month "
            f"{self.alarms / self.seconds * _MONTH:7.2f}   probes a day {self.probes / days:6.2f} "
            f"  sent a day {self.sent / days:5.2f}"
        )


def main() -> None:
    """Run the benchmark and print the results."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else CHANNELS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    print(f"{count} channels, seed {seed}; weeks 1 to {TRAIN_WEEKS} train, the others test")
    channels = [make(number, seed) for number in range(count)]
    groups: list[tuple[str, set[str]]] = [(kind.name, {kind.name}) for kind in KINDS]
    groups += [("busy", BUSY), ("quiet", QUIET), ("all", {kind.name for kind in KINDS})]
    every = _judge_all(channels)
    for zombie, found in every.items():
        print(f"\n{zombie.value}")
        for name, kinds in groups:
            print(name)
            for way, outcomes in found.items():
                mine = [o for c, o in zip(channels, outcomes, strict=True) if c.kind in kinds]
                print(f"  {way:18} {_together(mine)}")
        if zombie is Zombie.DEAF:
            _print_goals(channels, found)


def _print_goals(channels: Sequence[Channel], found: dict[str, list[Outcome]]) -> None:
    def of(way: str, kinds: set[str]) -> Outcome:
        return _together([o for c, o in zip(channels, found[way], strict=True) if c.kind in kinds])

    fewer = statistics.mean(of("fixed 4 h", BUSY).lost) / statistics.mean(of("echo", BUSY).lost)
    before, after = of("fixed 4 h", QUIET).alarms, of("echo", QUIET).alarms
    print(f"busy: {fewer:.1f}x fewer lost messages (mean) with echo than with fixed 4 h")
    print(f"quiet: {before} needless reconnections with fixed 4 h, {after} with echo")


def _judge_all(channels: Sequence[Channel]) -> dict[Zombie, dict[str, list[Outcome]]]:
    names = ("fixed 4 h", "adaptive", "query", "delivery", "echo", "echo alone")
    found = {kind: {name: [Outcome() for _ in channels] for name in names} for kind in Zombie}
    for week in range(TRAIN_WEEKS, WEEKS):
        begins = BEGINS.timestamp() + week * WEEK
        histories = {str(n): history_of(c.heard, begins) for n, c in enumerate(channels)}
        learned = learn(histories, _BOUNDS, ZONE)
        for number, channel in enumerate(channels):
            ways = _ways(learned.get(str(number)))
            for name, way in zip(names, ways, strict=True):
                outcomes = {kind: of_kind[name][number] for kind, of_kind in found.items()}
                _judge(channel, way, begins, outcomes)
    return found


def _ways(learned: Learned | None) -> tuple[Way, ...]:
    """Return the ways in the order of their names; ``echo alone`` compares no messages."""

    def fixed(_at: float) -> float:
        return 4 * _HOUR

    def half_hour(_at: float) -> float:
        return _HOUR / 2

    def silent(at: float) -> float:
        return fixed(at) if learned is None else learned.threshold(at, _BOUNDS, ZONE)

    def suspect(at: float) -> float:
        if learned is None:
            return half_hour(at)
        return min(silent(at), learned.suspicion(at, _BOUNDS, ZONE))

    return (
        Way(fixed),
        Way(silent),
        Way(silent, suspect),
        Way(silent, suspect, compares=True),
        Way(silent, suspect, compares=True, echo=True),
        Way(silent, suspect, echo=True),
    )


@dataclass(frozen=True)
class _Probe:
    """One probe; ``sends`` marks an echo, whose arrival counts as a new message."""

    at: float
    sends: bool


class _Clock:
    """Schedules one channel's probes within the rate limits."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._echoes: deque[float] = deque()
        self._last = float("-inf")

    def after(self, heard: float, until: float) -> Iterator[_Probe]:
        """Yield the probes after ``heard``; each echo counts as a new message.

        If messages are compared, the first probe sends nothing, and the next one is an echo.
        """
        way, at, compared = self._way, heard, False
        while way.suspect is not None:
            sends = way.echo and (compared or not way.compares)
            due = at + _PAUSE if at == self._last and not way.echo else at + way.suspect(at)
            due = max(at + _PAUSE if compared else due, self._last + _PAUSE)
            if sends:
                while self._echoes and self._echoes[0] <= due - _DAY:
                    self._echoes.popleft()
                if len(self._echoes) >= _ECHOES_PER_DAY:
                    due = max(due, self._echoes[0] + _DAY)
            if due >= until:
                return
            self._last = due
            if sends:
                self._echoes.append(due)
            yield _Probe(due, sends)
            at, compared = due, way.compares and not sends


def _judge(channel: Channel, way: Way, begins: float, outcomes: Mapping[Zombie, Outcome]) -> None:
    ends = begins + WEEK
    healthy_week = Outcome(seconds=WEEK)
    heard, sent = channel.heard, channel.sent
    clock = _Clock(way)
    clocks: dict[int, list[_Probe]] = {}
    # The last gap of a week ends in the next one.
    last = min(bisect_left(heard, ends), len(heard) - 1)
    for number in range(bisect_left(heard, begins), last):
        at, following = heard[number], heard[number + 1]
        if following - at <= FLOOR:
            continue
        healthy = not any(start < following and at < end for start, end in channel.outages)
        if not healthy:
            continue
        made = clocks[number] = list(clock.after(at, following))
        healthy_week.probes += len(made)
        echoes = [probe.at for probe in made if probe.sends]
        healthy_week.sent += len(echoes)
        moved = [at, *echoes, following]
        healthy_week.alarms += any(
            later - one > way.silent(one) for one, later in itertools.pairwise(moved)
        )
    for outcome in outcomes.values():
        outcome.add(healthy_week)
    for zombie in channel.zombies:
        already = any(start <= zombie < end for start, end in channel.outages)
        if not begins <= zombie < ends or already:
            continue
        before = bisect_right(heard, zombie) - 1
        probes = _ProbesOf(way, heard[before], clocks.get(before, ()), zombie)
        received = bisect_right(sent, zombie)
        first = sent[received] if received < len(sent) else float("inf")
        for kind, outcome in outcomes.items():
            ended, in_vain = probes.end(kind, first)
            outcome.in_vain += in_vain
            outcome.lost.append(bisect_right(sent, ended) - received)


class _ProbesOf:
    """The probes of a zombie since it became one."""

    def __init__(self, way: Way, last: float, made: Sequence[_Probe], zombie: float) -> None:
        passed = [one for one in made if one.at <= zombie]
        echoes = [one.at for one in passed if one.sends]
        moved = echoes[-1] if echoes else last
        self._way = way
        self._silent_at = max(zombie, moved + way.silent(moved))
        self._due = float("inf")
        self._compared = bool(passed) and way.compares and not passed[-1].sends
        if way.suspect is not None:
            due = moved + way.suspect(moved)
            if passed:
                # A lasting suspicion repeats the probe; a further echo needs the pause.
                due = max(due, passed[-1].at + _PAUSE)
            self._due = max(zombie, due) + _ALERT_SECONDS
        day = [at for at in echoes if at > zombie - _DAY]
        bound = day[-_ECHOES_PER_DAY] + _DAY if len(day) >= _ECHOES_PER_DAY else 0.0
        # Time of the first echo.
        waits = _PAUSE if way.compares and not self._compared else 0.0
        self._echo = max(self._due + waits, bound) if way.echo else float("inf")

    def end(self, kind: Zombie, first: float) -> tuple[float, int]:
        """Return when the zombie is repaired, and the number of useless reconnections.

        ``first`` is the time of the first message that it loses.
        """
        match kind:
            case Zombie.SOCKET:
                return min(self._silent_at, self._due + _QUERY_SECONDS), 0
            case Zombie.DEAF:
                return min(self._silent_at, self._echo + _BLAME_SECONDS), 0
            case _:
                return self._broken(first)

    def _broken(self, first: float) -> tuple[float, int]:
        told = self._silent_at + _STILL_SECONDS
        if self._way.compares:
            # The gateway receives echoes too.
            shown = min(first, self._echo) + _LATE_SECONDS
            if max(shown, self._due) < told:
                later = max(0, math.ceil((shown - self._due) / _PAUSE))
                told = min(told, self._due + later * _PAUSE)
            in_vain = self._repairs(told)
            lost = self._echo + _BLAME_SECONDS < told
            return told, in_vain or int(lost)
        if self._way.echo and self._echo + _BLAME_SECONDS < self._silent_at:
            return self._echo + _BLAME_SECONDS + _FAILING_SECONDS, _FAILING_REPAIRS
        return told, self._repairs(told)

    def _repairs(self, end: float) -> int:
        """Return the number of reconnections for its silence."""
        begin = self._silent_at
        if end <= begin:
            return 0
        if self._way.compares:
            # A session that passes its probe is reconnected again after another silence.
            return 1 + int((end - begin) // self._way.silent(begin))
        hours = max(0.0, end - begin - _REPAIRS[-1]) // _HOUR
        return sum(begin + one < end for one in _REPAIRS) + int(hours)


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    found = Outcome()
    for one in outcomes:
        found.add(one)
    return found


if __name__ == "__main__":
    main()
