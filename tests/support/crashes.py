"""Hooks that are killed at random moments during a stream of alerts: nothing may be lost."""

from __future__ import annotations

import random
import re
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa

from demo.simulator.server import SimulatorServer
from tests.support.alerts import alert, payload
from tests.support.hooks import SECRET, hook_settings, log_lines
from tests.support.mortal_hooks import MortalHook
from tests.support.waiting import wait_until

_CHANNELS = 24
_SLOW_SECONDS = 0.05  # duration of a getQr call, long enough for kills during calls
_LIFE_SECONDS = 0.3  # maximum from the first answer to the kill
_CLOCK_SECONDS = 0.05  # maximum delay of times recorded here
_TRANSACTION_SECONDS = 15.0  # maximum of one, including waits for locks


@dataclass
class Toll:
    """Results of a run."""

    seed: int
    kills: int = 0
    accepted: int = 0
    """Alerts in notifications that were answered with 202."""
    unanswered: int = 0
    """Notifications without an answer, whose result the sender does not know."""
    repairs: int = 0
    calls: int = 0
    lost: list[str] = field(default_factory=list)
    """Accepted alerts without an outcome."""
    unlogged: list[str] = field(default_factory=list)
    """Outcomes in the state without a log line."""
    too_many: list[str] = field(default_factory=list)
    """Repairs with more calls than one plus one for each kill while they were open."""

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.kills} kills, {self.accepted} accepted alerts, "
            f"{self.unanswered} notifications cut off, {self.repairs} repairs, {self.calls} calls; "
            f"without an outcome: {len(self.lost)}, not in the log: {len(self.unlogged)}, "
            f"called too often: {len(self.too_many)}"
        )


class Sender(threading.Thread):
    """Sends alerts as Alertmanager does: each one until accepted, to any of the hooks."""

    def __init__(
        self, posts: Sequence[Callable[[bytes], int]], names: Sequence[str], seed: int
    ) -> None:
        """``posts`` send a payload to a hook, and return the status of the answer."""
        super().__init__(daemon=True)
        self._posts = posts
        self._names = names
        self._random = random.Random(seed)
        self.sent: list[tuple[str, float]] = []
        """Accepted alerts: channel, and Unix time of sending."""
        self.answers: list[int] = []
        self.unanswered = 0
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.is_set():
            channels = self._random.sample(self._names, self._random.choice([1, 1, 2, 5]))
            body = payload(*map(alert, channels))
            while not self.ending.is_set() and not self._send(body, channels):
                pass
            self.ending.wait(self._random.random() * 0.03)

    def _send(self, body: bytes, channels: Sequence[str]) -> bool:
        began = time.time()
        try:
            status = self._random.choice(self._posts)(body)
        except requests.RequestException:
            self.unanswered += 1
            return False
        assert status in {202, 503}
        self.answers.append(status)
        if status == 202:
            self.sent += [(channel, began) for channel in channels]
        return status == 202


def crash(folder: Path, state_url: sa.URL, *, hooks: int, kills: int, seed: int) -> Toll:
    """Kill hooks on one state ``kills`` times, and count the losses."""
    chance = random.Random(seed)
    names = [f"channel {number:02d}" for number in range(_CHANNELS)]
    with SimulatorServer(SECRET) as simulator:
        for number, name in enumerate(names):
            session = "dead" if number % 2 else "paired"
            simulator.gateway.put(name, {"session": session, "reconnect_seconds": 0.0})
        simulator.faults.switch_on("qr", {"fault": "slow", "seconds": _SLOW_SECONDS})
        settings = hook_settings(
            simulator.url, HOOK_STATE_URL=state_url.render_as_string(hide_password=False)
        )
        group = [MortalHook(settings, folder) for _ in range(hooks)]
        sender = Sender([hook.post for hook in group], names, seed)
        killed: list[float] = []
        try:
            for hook in group:
                hook.start()
            sender.start()
            for _ in range(kills):
                simulator.gateway.act(chance.choice(names), "drop")
                victim = chance.choice(group)
                # One in four dies while it starts.
                if chance.random() < 0.75:
                    victim.wait()
                time.sleep(chance.random() * _LIFE_SECONDS)
                killed.append(victim.kill())
                victim.start()
            for hook in group:
                hook.wait()
            sender.ending.set()
            sender.join()
            simulator.faults.clear()
            engine = sa.create_engine(state_url)
            left = "SELECT channel FROM channel WHERE next_at IS NOT NULL"
            wait_until(lambda: not _read(engine, left), "the queue to be empty")
            ended = "SELECT channel, accepted_at, finished_at, outcome FROM repair_log"
            rows = _read(engine, ended)
            engine.dispose()
        finally:
            sender.ending.set()
            for hook in group:
                hook.close()
        calls = simulator.calls("qr")
    return _count(seed, killed, sender, rows, calls, log_lines(folder))


def _read(engine: sa.Engine, statement: str) -> Sequence[Any]:
    with engine.connect() as connection:
        return connection.execute(sa.text(statement)).all()


def _unlogged(rows: Sequence[Any], lines: Sequence[str]) -> list[str]:
    """Return the outcomes without a separate log line from the time of their repair."""
    written: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        found = _LINE.fullmatch(line)
        assert found, line
        when = datetime.fromisoformat(found[1]).timestamp()
        written.setdefault((found[2], found[3]), []).append(when)
    missing = []
    for row in sorted(rows, key=lambda row: float(row.finished_at)):
        times = written.get((row.channel, row.outcome), [])
        # A line's time is in whole seconds, and it is written at the end of the transaction.
        last = row.finished_at + _TRANSACTION_SECONDS
        fitting = [t for t in times if row.accepted_at - 1 <= t <= last]
        if fitting:
            times.remove(fitting[0])
        else:
            missing.append(f"{row.channel} {row.outcome} at {row.finished_at}")
    return missing


_LINE = re.compile(r'(\S+) \[healthcheck-sessions\] channel="([^"]+)" .* outcome=(\w+) .*')


def _count(
    seed: int,
    killed: list[float],
    sender: Sender,
    rows: Sequence[Any],
    calls: Sequence[Mapping[str, Any]],
    lines: Sequence[str],
) -> Toll:
    toll = Toll(seed, len(killed), len(sender.sent), sender.unanswered, len(rows), len(calls))
    last_end: dict[str, float] = {}
    for row in rows:
        assert row.outcome, row
        last_end[row.channel] = max(row.finished_at, last_end.get(row.channel, 0.0))
    for channel, sent_at in sender.sent:
        if last_end.get(channel, 0.0) < sent_at - _CLOCK_SECONDS:
            toll.lost.append(f"{channel} sent at {sent_at}")
    toll.unlogged = _unlogged(rows, lines)
    killed.sort()
    for row in rows:
        first, last = row.accepted_at, row.finished_at
        made = sum(c["channel"] == row.channel and first <= c["epoch"] <= last for c in calls)
        deaths = bisect_right(killed, last + _CLOCK_SECONDS) - bisect_left(killed, first)
        if made > 1 + deaths:
            toll.too_many.append(f"{row.channel}: {made} calls, {deaths} deaths")
    return toll
