"""The bounds of probes hold over any sequence of alerts, crashes and clocks that are put back."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reconnect_hook.models import ProbeOutcome, RepairCause
from reconnect_hook.probe_limits import ECHO_GAP_SECONDS, LimitReason, ProbeRepository, prune_echoes
from reconnect_hook.recorder import Recorder
from reconnect_hook.schema import echoes
from tests.support.examples import examples
from tests.support.world import Options, World
from zapwatch.channels import ByName, Channel, Status
from zapwatch.config.readers import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.db import CollisionError
from zapwatch.messages.message import make_token

_DAY = 86400.0
_PAUSE = 900.0
_PER_DAY = 4
_CHANNELS = ["a", "b", "c"]
_OPTIONS = Options(
    can_query=True,
    has_messages=False,
    probe=ProbeSettings(
        kind=ProbeKind.QUERY,
        overrides=ByName({}),
        after_minutes=30,
        pause_minutes=_PAUSE / 60,
        echoes_per_day=_PER_DAY,
        echo_numbers=ByName({}),
        echo_text="",
    ),
)


def _world(folder: Path, *, hooks: int = 1) -> World:
    world = World(folder, _OPTIONS, hooks=hooks)
    for key in _CHANNELS:
        world.put(key)
    return world


def _asked(world: World, key: str = "a") -> list[float]:
    """Return when a channel was asked, in seconds that no clock has a part in."""
    return [at for name, about, at in world.gateway.calls if (name, about) == ("query", key)]


class Bounds(RuleBasedStateMachine):
    """Two hooks on one state, whose clock may be put back. What was done is noted in true time."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.world = _world(Path(self.folder.name), hooks=2)
        self.sent: list[tuple[float, str, str]] = []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            self.folder.cleanup()

    def book(self, hook: int) -> ProbeRepository:
        return self.world.hooks[hook].probing.book

    @rule(hook=st.integers(0, 1), key=st.sampled_from(_CHANNELS))
    def suspect(self, hook: int, key: str) -> None:
        self.world.alert(key, RepairCause.SUSPECT, to=hook)
        self.world.run(3)

    @rule(
        hook=st.integers(0, 1),
        sender=st.sampled_from(_CHANNELS),
        receiver=st.sampled_from(_CHANNELS),
        heard=st.sampled_from([True, False, None]),
        pause=st.sampled_from([0.0, 11.0]),
    )
    def echoes(
        self, hook: int, sender: str, receiver: str, heard: bool | None, pause: float
    ) -> None:
        for _ in range(_PER_DAY):
            token = make_token(receiver)
            if self.book(hook).reserve(sender, receiver, token) is None:
                self.sent.append((self.world.clock.monotonic(), sender, receiver))
                if heard is not None:
                    self.book(hook).note_echo(token, heard=heard)
            self.world.clock.seconds += pause

    @rule(hook=st.integers(0, 1), key=st.sampled_from(_CHANNELS))
    def lose(self, hook: int, key: str) -> None:
        channel = Channel(key, Status.CONNECTED)
        self.book(hook).end(key, ProbeKind.ECHO, ProbeOutcome.UNDECIDED, [channel])
        assert self.book(1 - hook).reserve(key, "x", make_token("x")) is LimitReason.SUSPENDED
        assert self.book(hook).reserve("x", key, make_token(key)) is LimitReason.SUSPENDED
        self.book(hook).resume([key])

    @rule(hook=st.integers(0, 1))
    def crash(self, hook: int) -> None:
        self.world.restart(hook)

    @rule(seconds=st.sampled_from([1.0, 9.0, 11.0, 890.0, 901.0, 20_000.0, 80_000.0]))
    def wait(self, seconds: float) -> None:
        self.world.clock.seconds += seconds
        self.world.run(3)

    @rule(seconds=st.sampled_from([5.0, 1000.0, 100_000.0]))
    def clock_put_back(self, seconds: float) -> None:
        self.world.clock.jumped -= seconds

    @rule()
    def forget(self) -> None:
        prune_echoes(self.world.hook.database)

    @invariant()
    def no_channel_is_asked_too_often(self) -> None:
        for key in _CHANNELS if hasattr(self, "world") else ():
            times = _asked(self.world, key)
            assert all(b - a >= _PAUSE for a, b in itertools.pairwise(times)), times

    @invariant()
    def no_channel_takes_part_in_too_many_echoes(self) -> None:
        for key in _CHANNELS:
            times = [at for at, *pair in getattr(self, "sent", ()) if key in pair]
            for first, over in zip(times, times[_PER_DAY:], strict=False):
                assert over - first >= _DAY

    @invariant()
    def there_is_no_burst(self) -> None:
        times = [at for at, *_ in getattr(self, "sent", ())]
        assert all(b - a >= ECHO_GAP_SECONDS for a, b in itertools.pairwise(times))


TestBounds: Any = Bounds.TestCase
TestBounds.settings = settings(max_examples=examples(12), stateful_step_count=40)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = _world(tmp_path)
    yield made
    made.close()


def _send(world: World, sender: str = "a", receiver: str = "b") -> LimitReason | None:
    return world.hook.probing.book.reserve(sender, receiver, make_token(receiver))


def _suspect(world: World, key: str = "a", cause: RepairCause = RepairCause.SUSPECT) -> int:
    """Let a channel be suspected; return how often it was asked for that within a minute."""
    before = len(_asked(world, key))
    world.alert(key, cause)
    world.run(60)
    return len(_asked(world, key)) - before


def test_a_clock_that_jumps_ahead_frees_nothing(world: World) -> None:
    assert _suspect(world) == 1
    for _ in range(_PER_DAY):
        assert _send(world) is None
        world.clock.seconds += 20
    world.clock.jumped += 30 * _DAY
    assert _send(world, "a", "c") is LimitReason.TOO_MANY
    assert _send(world, "c", "b") is LimitReason.TOO_MANY
    assert _suspect(world) == 0
    world.run(_PAUSE)
    assert len(_asked(world)) == 2, "what has waited is asked then"
    world.clock.seconds += _DAY
    assert _suspect(world) == 1
    assert _send(world, "a", "c") is None


def test_a_probe_whose_claim_was_not_committed_does_not_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Recorder._store

    def collide(recorder: Recorder, *values: Any) -> None:
        store(recorder, *values)
        if values[-1].claimed:
            monkeypatch.undo()
            raise CollisionError("made up")

    monkeypatch.setattr(Recorder, "_store", collide)
    lists = world.gateway.lists
    assert _suspect(world) == 1
    assert world.gateway.lists - lists == 1


def test_a_clock_that_was_ahead_delays_a_probe_by_a_pause_at_most(world: World) -> None:
    assert _suspect(world) == 1
    world.clock.jumped -= _DAY
    assert _suspect(world) == 0
    world.run(_PAUSE + 60)
    assert len(_asked(world)) == 2


def _hang_once(world: World) -> None:
    """Let the next query of a channel have no answer as long as its hook lives."""

    def hang(*_: str) -> None:
        world.gateway.on_call = lambda *_: None
        world.clock.wait(threading.Event(), 1000)

    world.gateway.on_call = hang


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_probe_whose_hook_died_may_go_on_and_a_person_need_not_wait(
    world: World, *, by_hand: bool
) -> None:
    assert _suspect(world) == 1
    if not by_hand:
        world.clock.seconds += _PAUSE
    _hang_once(world)
    cause = RepairCause.ASKED if by_hand else RepairCause.SUSPECT
    assert _suspect(world, cause=cause) == 1, "a person need not wait"
    world.restart()
    world.run(15)
    assert len(_asked(world)) == 3, "it goes on"
    row = world.row("a")
    assert row is not None
    assert not row.is_open
    assert _suspect(world) == 0, "and counts"


def test_history_of_echoes_goes_after_two_days(world: World) -> None:
    book, token = world.hook.probing.book, make_token("b")
    assert book.reserve("a", "b", token) is None
    book.note_echo(token, sent=True)
    book.note_echo(token, heard=False)
    assert [(one.sender, one.receiver) for one in book.lost_echoes("b", 10 * _DAY)] == [("a", "b")]
    world.clock.seconds += 3 * _DAY
    world.run(3)
    assert book.lost_echoes("b", 10 * _DAY) == [], "by themselves"


def test_who_hears_itself_is_remembered_for_longer(world: World) -> None:
    book = world.hook.probing.book
    for sender in ("a", "a", "b"):
        token = make_token("a")
        assert book.reserve(sender, "a", token) is None
        book.note_echo(token, heard=True)
        world.clock.seconds += 20
    world.clock.seconds += 3 * _DAY
    prune_echoes(world.hook.database)
    assert book.hears_itself("a")
    assert not book.hears_itself("b")
    with world.hook.database.read() as connection:
        left = connection.scalars(sa.select(echoes.c.sender)).all()
    assert left == ["a"], "the last one will do"


def test_a_clock_that_was_ahead_stops_echoes_for_a_day_at_most(world: World) -> None:
    for _ in range(_PER_DAY):
        assert _send(world) is None
        world.clock.seconds += 20
    world.clock.jumped -= 30 * _DAY
    assert _send(world) is LimitReason.TOO_MANY
    world.clock.seconds += _DAY + 1
    assert _send(world) is None
