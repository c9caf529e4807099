"""Whatever dies, comes back, is repaired or late meanwhile: who is well is not found to be dead."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconnect_hook.echo import PostponedError, ProbeContext, QueryFailedOnceError, UnableError
from reconnect_hook.probe import Finding, ProbeRun
from reconnect_hook.probe_limits import ProbeRepository
from reconnect_hook.repository import add_gateways
from reconnect_hook.schema import open_state
from tests.support.examples import examples
from tests.support.states import hurry, state_url
from zapwatch.channels import ByName, Channel, Status
from zapwatch.clock import Clock
from zapwatch.config.readers import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, Operation
from zapwatch.messages.message import RecentMessages

_SEEDS = examples(20)
_EVER = float("inf")


@dataclass(slots=True)
class _Session:
    """One channel as it really is: ``bad_until`` is when it last was not well."""

    name: str
    number: str
    gone: bool = False
    deaf: bool = False
    bad_until: float = -_EVER
    """The end of its last trouble."""
    repaired_at: float = -_EVER

    @property
    def well(self) -> bool:
        return not (self.gone or self.deaf)


@dataclass(slots=True)
class _Row:
    key: str
    token: str | None
    at: float


class _Error(GatewayError):
    def __init__(self, operation: Operation) -> None:
        super().__init__(operation, GatewayErrorKind.TIMEOUT, "no answer")


@dataclass(slots=True)
class World(Clock):
    """Channels of one gateway, their log, and a clock that goes only while somebody waits."""

    chance: random.Random
    can_query: bool
    count: int
    lag: float = 0.0
    """Seconds by which the log is behind."""
    events: tuple[str, ...] = ()
    rate: float = 0.0
    """Events a second, while a probe waits."""
    now: float = 1_700_000_000.0
    rows: list[_Row] = field(default_factory=list)
    sessions: dict[str, _Session] = field(default_factory=dict)
    asks_number: bool = False
    can_take_back: bool = False
    story: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for index in range(self.count):
            name = "abcde"[index]
            self.sessions[name] = _Session(name, f"550000000000{index}")

    # The clock.

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds))):
            self.now += seconds / max(1, round(seconds))
            if self.events and self.chance.random() < self.rate:
                self.happen(self.chance.choice(self.events))

    def happen(self, event: str) -> None:
        one = self.chance.choice(list(self.sessions.values()))
        self.story.append(f"{self.now:.0f} {event} {one.name}")
        if event in {"dies", "is deaf"}:
            one.gone = one.gone or event == "dies"
            one.deaf = one.deaf or event == "is deaf"
        elif event in {"comes back", "is repaired"}:
            if not one.well:
                one.bad_until = self.now
            one.gone = one.deaf = False
            if event == "is repaired":
                one.repaired_at = self.now
        elif one.well:
            self.rows.append(_Row(one.name, None, self.now))

    # The gateway.

    def query(self, channel: Channel) -> None:
        self.now += 0.5
        if self.sessions[channel.id].gone:
            raise _Error(Operation.QUERY)

    def own_number(self, channel: Channel) -> str:
        return self.sessions[channel.id].number

    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        self.now += self.chance.choice([0.1, 2.0])
        receiver = next(one for one in self.sessions.values() if one.number == number)
        self.story.append(f"{self.now:.0f} {channel.id} writes to {receiver.name}")
        if self.sessions[channel.id].gone:
            if self.chance.random() < 0.3:
                raise _Error(Operation.SEND)
        elif receiver.well:
            token = text.rpartition(" ")[2]
            self.rows.append(
                _Row(receiver.name, token, self.now + self.chance.choice([0.2, 3.0, 8.0]))
            )
        return None

    def list_channels(self) -> None:
        """Whoever asks only wants to know that it answers."""

    # The log.

    def recent(self, seconds: float) -> RecentMessages:
        heard = RecentMessages()
        for row in self.rows:
            # The log's times are cut to whole seconds.
            at = float(int(row.at))
            if row.at + self.lag <= self.now and at >= self.now - seconds:
                age = self.now - at
                heard.ages[row.key] = min(age, heard.ages.get(row.key, age))
                if row.token:
                    heard.echoes.add(row.token)
        return heard

    def close(self) -> None:
        """There is nothing to close."""

    # What is asked.

    def listed(self) -> dict[str, Channel]:
        return {
            name: Channel(name, Status.CONNECTED, one.number) for name, one in self.sessions.items()
        }

    def probe(self, book: ProbeRepository, name: str) -> Finding | None:
        client: Any = self
        settings = _SETTINGS
        means = ProbeContext(client, client, book, settings, self.sleep)
        listed = self.listed()
        self.story.append(f"{self.now:.0f} {name} is asked")
        book.begin(listed[name])
        query_failed = False
        for _ in range(20):
            run = ProbeRun(means, listed[name], listed, query_failed=query_failed)
            try:
                finding = run.run(ProbeKind.ECHO)
            except PostponedError as error:
                query_failed = isinstance(error, QueryFailedOnceError)
                self.sleep(error.seconds + 1)
            except UnableError as error:
                self.story.append(f"{self.now:.0f} {error}")
                return None
            else:
                book.end(name, finding.kind, finding.outcome, finding.suspended)
                self.story.append(f"{self.now:.0f} {finding}")
                return finding
        return None


_SETTINGS = ProbeSettings(
    kind=ProbeKind.ECHO,
    overrides=ByName({}),
    after_minutes=30,
    pause_minutes=15,
    echoes_per_day=1000,
    echo_numbers=ByName({}),
    echo_text="hello",
)


@contextmanager
def _book(monkeypatch: pytest.MonkeyPatch, folder: Path, world: World) -> Iterator[ProbeRepository]:
    database = open_state(state_url(folder), clock=world)
    hurry(database._engine)
    add_gateways(database, ["wpp"])
    book = ProbeRepository(database, "wpp", _SETTINGS)
    monkeypatch.setattr(
        book,
        "repaired",
        lambda seconds: {
            one.name for one in world.sessions.values() if one.repaired_at > world.now - seconds
        },
    )
    yield book
    database.close()


_IN_A_PROBE = ("dies", "is deaf", "is repaired", "a message", "a message")
_BETWEEN = (*_IN_A_PROBE, "comes back", "comes back")


def _find(monkeypatch: pytest.MonkeyPatch, folder: Path, world: World) -> int:
    """Ask channels a few times, and repair whom that finds; return how many that were."""
    found = 0
    in_a_probe, rate = world.events, world.rate
    with _book(monkeypatch, folder, world) as book:
        for _ in range(8):
            name = world.chance.choice(list(world.sessions))
            began = world.now
            finding = world.probe(book, name)
            for channel in finding.dead if finding else ():
                session = world.sessions[channel.id]
                story = "\n".join(world.story)
                assert not session.well or session.bad_until >= began, story
                found += 1
                session.gone = session.deaf = False
                session.bad_until = session.repaired_at = world.now
                book.resume([channel.key])
            world.events = _BETWEEN if in_a_probe != ("a message",) else in_a_probe
            world.rate = world.chance.choice([0.0, 0.005, 0.02])
            world.sleep(world.chance.choice([60.0, 900.0, 1800.0]))
            world.events, world.rate = in_a_probe, rate
    return found


def _world(seed: int, **values: Any) -> World:
    chance = random.Random(seed)
    can_query, count = chance.random() < 0.5, chance.choice([2, 2, 3, 4])
    return World(chance, can_query, count, rate=chance.choice([0.0, 0.005, 0.02]), **values)


def test_nobody_is_blamed_for_what_another_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = 0
    for seed in range(_SEEDS):
        world = _world(seed, events=_IN_A_PROBE)
        for session in world.sessions.values():
            session.gone, session.deaf = world.chance.choice(
                [(False, False), (False, False), (True, False), (False, True)]
            )
        found += _find(monkeypatch, tmp_path / str(seed), world)
    assert found > _SEEDS, "and the dead are found"


@pytest.mark.parametrize("lag", [20.0, 70.0, 90.0, 300.0])
def test_a_log_that_is_behind_gets_nobody_blamed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lag: float
) -> None:
    for seed in range(5):
        world = _world(seed, events=("a message",), lag=lag)
        assert _find(monkeypatch, tmp_path / str(seed), world) == 0
