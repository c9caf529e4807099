"""Back-test of proof of life: messages lost to zombies, needless reconnections, and probes made.

    python -m benchmarks.probes [CHANNELS [SEED]]

The channels, and how it is learned and tested, are those of benchmarks/silence.py. A zombie's
connection is either dead, which a query shows, or only its events no longer come, which nothing but
an echo shows. Healthy channels answer every probe. Alerts, polls and lost echoes take their time,
and the bounds hold: a probe each 15 minutes, 24 echoes a day of which half are for others.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
_ECHOES_PER_DAY = 12  # that a channel gets; it sends as many for others
_ALERT_SECONDS = 30.0  # from what the log tells to what the hook does
_QUERY_SECONDS = 90.0  # two failures, a minute apart
_BLAME_SECONDS = 150.0  # a lost echo, and the next that shows who is dead
_SHARES = (0, 50, 100)  # per cent of zombies that only an echo proves

Rule = Callable[[float], float]


@dataclass
class Way:
    """A way of judging one channel in one week: thresholds of silence and of suspicion."""

    silent: Rule
    suspect: Rule | None = None
    echo: bool = False


@dataclass
class Outcome:
    """What it did."""

    lost: list[int] = field(default_factory=list)
    alarms: int = 0
    probes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        days = self.seconds / _DAY
        p90 = sorted(self.lost)[int(0.9 * (len(self.lost) - 1))]
        return (
            f"lost {statistics.median(self.lost):6.1f} median {p90:7.1f} p90 "
            f"{statistics.mean(self.lost):7.1f} mean   getQr on healthy a month "
            f"{self.alarms / self.seconds * _MONTH:7.2f}   probes a day {self.probes / days:6.2f}"
        )


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else CHANNELS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    print(f"{count} channels, seed {seed}; weeks 1 to {TRAIN_WEEKS} train, the others test")
    channels = [make(number, seed) for number in range(count)]
    groups: list[tuple[str, set[str]]] = [(kind.name, {kind.name}) for kind in KINDS]
    groups += [("busy", BUSY), ("quiet", QUIET), ("all", {kind.name for kind in KINDS})]
    for share in _SHARES:
        found = _judge_all(channels, share)
        print(f"\n{share} % of zombies can only be proved by an echo")
        for name, kinds in groups:
            print(name)
            for way, outcomes in found.items():
                mine = [o for c, o in zip(channels, outcomes, strict=True) if c.kind in kinds]
                print(f"  {way:18} {_together(mine)}")
        _print_goals(channels, found)


def _print_goals(channels: Sequence[Channel], found: dict[str, list[Outcome]]) -> None:
    def of(way: str, kinds: set[str]) -> Outcome:
        return _together([o for c, o in zip(channels, found[way], strict=True) if c.kind in kinds])

    fewer = statistics.mean(of("fixed 4 h", BUSY).lost) / statistics.mean(of("echo", BUSY).lost)
    before, after = of("fixed 4 h", QUIET).alarms, of("echo", QUIET).alarms
    print(f"busy: {fewer:.1f}x fewer lost messages (mean) with echo than with fixed 4 h")
    print(f"quiet: {before} needless reconnections with fixed 4 h, {after} with echo")


def _judge_all(channels: Sequence[Channel], share: int) -> dict[str, list[Outcome]]:
    names = ("fixed 4 h", "adaptive", "query", "echo")
    found = {name: [Outcome() for _ in channels] for name in names}
    for week in range(TRAIN_WEEKS, WEEKS):
        begins = BEGINS.timestamp() + week * WEEK
        histories = {str(n): history_of(c.heard, begins) for n, c in enumerate(channels)}
        learned = learn(histories, _BOUNDS, ZONE)
        for number, channel in enumerate(channels):
            ways = _ways(learned.get(str(number)))
            for name, way in zip(names, ways, strict=True):
                _judge(channel, way, begins, share, found[name][number])
    return found


def _ways(learned: Learned | None) -> tuple[Way, Way, Way, Way]:
    def fixed(_at: float) -> float:
        return 4 * _HOUR

    def half_hour(_at: float) -> float:
        return _HOUR / 2

    if learned is None:
        return Way(fixed), Way(fixed), Way(fixed, half_hour), Way(fixed, half_hour, echo=True)

    def silent(at: float) -> float:
        return learned.threshold(at, _BOUNDS, ZONE)

    def suspect(at: float) -> float:
        return min(silent(at), learned.suspicion(at, _BOUNDS, ZONE))

    return Way(fixed), Way(silent), Way(silent, suspect), Way(silent, suspect, echo=True)


class _Clock:
    """The probes of one channel, one after the other, within the bounds."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._echoes: deque[float] = deque()
        self._last = float("-inf")

    def after(self, heard: float, until: float) -> Iterator[float]:
        """Yield when probes are made from ``heard`` on; each echo is heard, and moves the clock."""
        suspect = self._way.suspect
        at = heard
        while suspect is not None:
            due = at + suspect(at) if self._way.echo or at == heard else at + _PAUSE
            due = max(due, self._last + _PAUSE)
            if self._way.echo:
                while self._echoes and self._echoes[0] <= due - _DAY:
                    self._echoes.popleft()
                if len(self._echoes) >= _ECHOES_PER_DAY:
                    due = max(due, self._echoes[0] + _DAY)
            if due >= until:
                return
            self._last = due
            if self._way.echo:
                self._echoes.append(due)
            yield due
            at = due


def _judge(channel: Channel, way: Way, begins: float, share: int, outcome: Outcome) -> None:
    ends = begins + WEEK
    outcome.seconds += WEEK
    heard, sent = channel.heard, channel.sent
    clock = _Clock(way)
    clocks: dict[int, list[float]] = {}
    for number in range(bisect_left(heard, begins), bisect_left(heard, ends) - 1):
        at, following = heard[number], heard[number + 1]
        if following - at <= FLOOR:
            continue
        healthy = not any(start < following and at < end for start, end in channel.outages)
        if not healthy:
            continue
        made = clocks[number] = list(clock.after(at, following))
        outcome.probes += len(made)
        moved = [at, *made, following] if way.echo else [at, following]
        outcome.alarms += any(
            later - one > way.silent(one) for one, later in itertools.pairwise(moved)
        )
    for index, zombie in enumerate(channel.zombies):
        already = any(start <= zombie < end for start, end in channel.outages)
        if not begins <= zombie < ends or already:
            continue
        before = bisect_right(heard, zombie) - 1
        only_echo = index % 100 * 37 % 100 < share
        detected = _detected(
            way, heard[before], clocks.get(before, ()), zombie, only_echo=only_echo
        )
        outcome.lost.append(bisect_right(sent, detected) - bisect_right(sent, zombie))


def _detected(
    way: Way, last: float, made: Sequence[float], zombie: float, *, only_echo: bool
) -> float:
    """Return when a zombie that began then is repaired."""
    passed = [at for at in made if at <= zombie]
    moved = passed[-1] if way.echo and passed else last
    by_silence = max(zombie, moved + way.silent(moved))
    if way.suspect is None or (only_echo and not way.echo):
        return by_silence
    due = moved + way.suspect(moved)
    if passed:
        # A suspicion that lasts is asked again; one echo more needs the pause.
        due = max(due, passed[-1] + _PAUSE) if way.echo else passed[-1] + _PAUSE
    day = [at for at in passed if at > zombie - _DAY]
    if way.echo and len(day) >= _ECHOES_PER_DAY:
        due = max(due, day[-_ECHOES_PER_DAY] + _DAY)
    proof = _BLAME_SECONDS if way.echo else _QUERY_SECONDS
    return min(by_silence, max(zombie, due) + _ALERT_SECONDS + proof)


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    found = Outcome()
    for one in outcomes:
        found.lost += one.lost
        found.alarms += one.alarms
        found.probes += one.probes
        found.seconds += one.seconds
    return found


if __name__ == "__main__":
    main()
