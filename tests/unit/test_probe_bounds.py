"""The bounds of probes hold over any sequence of alerts, crashes and clocks that are put back."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reconnect_hook.migrate import open_state
from reconnect_hook.probe_limits import ECHO_GAP_SECONDS, LimitReason, ProbeOutcome, ProbeRepository
from reconnect_hook.schema import echoes
from tests.support.examples import examples
from tests.support.states import StateClock, sqlite_url
from zapwatch.channels import Channel, Status
from zapwatch.config.gateway import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.messages.probe_token import make_token

_DAY = 86400.0
_PAUSE = 900.0
_PER_DAY = 4
_CHANNELS = ["a", "b", "c"]
_SETTINGS = ProbeSettings(
    kind=ProbeKind.ECHO,
    overrides={},
    after_minutes=30,
    pause_minutes=_PAUSE / 60,
    echoes_per_day=_PER_DAY,
    echo_numbers={},
    echo_text="",
)


class _TwoClocks(StateClock):
    """The database's clock, and ``true`` seconds, whatever that says."""

    def __init__(self) -> None:
        super().__init__()
        self.true = 1000.0

    def monotonic(self) -> float:
        return self.true

    def forward(self, seconds: float) -> None:
        self.seconds += seconds
        self.true += seconds


class Bounds(RuleBasedStateMachine):
    """Two hooks on one state, whose clock may be put back. What was done is noted in true time."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = _TwoClocks()
        self.database = open_state(sqlite_url(Path(self.folder.name)), clock=self.clock)
        self.hooks = [ProbeRepository(self.database, "wpp", _SETTINGS) for _ in range(2)]
        self.jobs = 0
        self.begun: list[tuple[float, str]] = []
        self.sent: list[tuple[float, str, str]] = []

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()

    @rule(hook=st.integers(0, 1), key=st.sampled_from(_CHANNELS))
    def suspect(self, hook: int, key: str) -> None:
        self.jobs += 1
        wait = self.hooks[hook].begin(key, key, self.jobs)
        assert 0 <= wait <= _PAUSE
        if wait == 0:
            self.begun.append((self.clock.true, key))

    @rule(
        hook=st.integers(0, 1),
        sender=st.sampled_from(_CHANNELS),
        receiver=st.sampled_from(_CHANNELS),
        heard=st.sampled_from([True, False, None]),
    )
    def echo(self, hook: int, sender: str, receiver: str, heard: bool | None) -> None:
        token = make_token(receiver)
        if self.hooks[hook].reserve(sender, receiver, token) is None:
            self.sent.append((self.clock.true, sender, receiver))
            if heard is not None:
                self.hooks[hook].note_echo(token, heard=heard)

    @rule(hook=st.integers(0, 1), key=st.sampled_from(_CHANNELS))
    def lose(self, hook: int, key: str) -> None:
        self.hooks[hook].end(
            key, key, ProbeKind.ECHO, ProbeOutcome.UNDECIDED, [Channel(key, Status.CONNECTED)]
        )
        assert self.hooks[1 - hook].reserve(key, "x", make_token("x")) is LimitReason.HALTED
        assert self.hooks[hook].reserve("x", key, make_token(key)) is LimitReason.HALTED
        self.hooks[hook].resume([key])

    @rule(hook=st.integers(0, 1))
    def crash(self, hook: int) -> None:
        self.hooks[hook] = ProbeRepository(self.database, "wpp", _SETTINGS)

    @rule(seconds=st.sampled_from([1.0, 9.0, 11.0, 899.0, 901.0, 20_000.0, 80_000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.forward(seconds)

    @rule(seconds=st.sampled_from([5.0, 1000.0, 100_000.0]))
    def clock_put_back(self, seconds: float) -> None:
        self.clock.seconds -= seconds

    @rule()
    def forget(self) -> None:
        self.hooks[0].forget_old()

    @invariant()
    def no_channel_is_asked_too_often(self) -> None:
        for key in _CHANNELS:
            times = [at for at, one in getattr(self, "begun", ()) if one == key]
            assert all(b - a >= _PAUSE for a, b in itertools.pairwise(times))

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
TestBounds.settings = settings(
    max_examples=examples(60),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture
def clock() -> _TwoClocks:
    return _TwoClocks()


@pytest.fixture
def book(tmp_path: Path, clock: _TwoClocks) -> Iterator[ProbeRepository]:
    database = open_state(sqlite_url(tmp_path), clock=clock)
    yield ProbeRepository(database, "wpp", _SETTINGS)
    database.close()


def test_a_clock_that_jumps_ahead_frees_nothing(book: ProbeRepository, clock: _TwoClocks) -> None:
    assert book.begin("a", "a", 1) == 0
    for _ in range(_PER_DAY):
        assert book.reserve("a", "b", make_token("b")) is None
        clock.forward(20)
    clock.seconds += 30 * _DAY
    assert book.reserve("a", "c", make_token("c")) is LimitReason.TOO_MANY
    assert book.reserve("c", "b", make_token("b")) is LimitReason.TOO_MANY
    assert book.begin("a", "a", 2) == pytest.approx(_PAUSE - 20 * _PER_DAY)
    clock.true += _DAY
    assert book.begin("a", "a", 2) == 0
    assert book.reserve("a", "c", make_token("c")) is None


def test_a_probe_whose_hook_died_may_go_on_and_a_person_need_not_wait(
    book: ProbeRepository,
) -> None:
    assert book.begin("a", "a", 1) == 0
    assert book.begin("a", "a", 1) == 0
    assert book.begin("a", "a", 2) > 0
    assert book.begin("a", "a", None) == 0
    assert book.begin("a", "a", 3) > 0


def test_what_a_person_wants_to_know_goes_on_after_a_death_too(book: ProbeRepository) -> None:
    assert book.begin("a", "a", 1) == 0
    assert book.begin("a", "a", 2, by_hand=True) == 0
    token = make_token("a")
    assert book.reserve("b", "a", token) is None
    book.note_sent(token, surely=True)
    book.note_echo(token, heard=False)
    assert book.begin("a", "a", 2, by_hand=True) == 0
    assert [echo.token for echo in book.earlier_echoes("a")] == [token]
    assert book.begin("a", "a", 3, by_hand=True) == 0


def test_another_job_of_the_same_id_must_wait(book: ProbeRepository) -> None:
    assert book.begin("a", "a", 1) == 0
    book.end("a", "a", ProbeKind.ECHO, ProbeOutcome.PASSED)
    assert book.begin("a", "a", 1) > 0
    assert book.begin("b", "b", 2) == 0
    book.give_up("b", "b")
    assert book.begin("b", "b", 2) > 0


def test_history_of_echoes_goes_after_two_days(book: ProbeRepository, clock: _TwoClocks) -> None:
    token = make_token("b")
    assert book.reserve("a", "b", token) is None
    book.note_sent(token, surely=True)
    book.note_echo(token, heard=False)
    assert [(one.sender, one.receiver) for one in book.lost_echoes("b", 10 * _DAY)] == [("a", "b")]
    clock.seconds += 3 * _DAY
    book.forget_old()
    assert book.lost_echoes("b", 10 * _DAY) == []


def test_who_hears_itself_is_remembered_for_longer(
    book: ProbeRepository, clock: _TwoClocks
) -> None:
    for sender in ("a", "a", "b"):
        token = make_token("a")
        assert book.reserve(sender, "a", token) is None
        book.note_echo(token, heard=True)
        clock.seconds += 20
    clock.seconds += 3 * _DAY
    book.forget_old()
    assert book.hears_itself("a")
    assert not book.hears_itself("b")
    with book._database.read() as connection:
        left = connection.scalars(sa.select(echoes.c.sender)).all()
    assert left == ["a"], "the last one will do"


def test_a_clock_that_was_ahead_stops_echoes_for_a_day_at_most(
    book: ProbeRepository, clock: _TwoClocks
) -> None:
    for _ in range(_PER_DAY):
        assert book.reserve("a", "b", make_token("b")) is None
        clock.forward(20)
    clock.seconds -= 30 * _DAY
    assert book.reserve("a", "b", make_token("b")) is LimitReason.TOO_MANY
    clock.forward(_DAY + 1)
    assert book.reserve("a", "b", make_token("b")) is None
