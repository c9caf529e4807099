"""The circuit breaker, and the pauses that a change makes pointless: on SQLite and on MariaDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reconnect_hook import backoff
from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.alerts import RepairCause
from reconnect_hook.backoff import Backoff
from reconnect_hook.channel_list_cache import ChannelListCache
from reconnect_hook.migrate import open_state
from reconnect_hook.models import Action, Job, Outcome, Result
from reconnect_hook.queue import Backlog, Jobs
from reconnect_hook.repair_worker import ROUND_SECONDS, Reconciler
from reconnect_hook.repository import RepairHistory
from tests.support.clock import HandMovedClock
from tests.support.states import StateClock, firing, sqlite_url
from zapwatch.channels import Channel, Status
from zapwatch.db import Database
from zapwatch.gateways.base import ChannelList, GatewayError, Operation
from zapwatch.gateways.base import GatewayErrorKind as Failure

_PAUSES = Backoff(300)


@pytest.fixture
def clock() -> StateClock:
    return StateClock()


@pytest.fixture(params=["sqlite", "mariadb"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, clock: StateClock
) -> Iterator[Database]:
    if request.param == "sqlite":
        url = sqlite_url(tmp_path)
    else:
        server = request.getfixturevalue("mariadb")
        url = server.url(server.create_database())
    made = open_state(url, clock=clock)
    yield made
    made.close()


class Hooks:
    """Two hooks on one state and one hand-moved clock."""

    def __init__(self, database: Database, clock: StateClock) -> None:
        self.database = database
        self.clock = clock
        self.intake = AlertWriter(database, "wpp", _PAUSES)
        self.jobs = [Jobs(database, "wpp", _PAUSES) for _ in range(2)]
        self.backlog = Backlog(database, "wpp", _PAUSES)

    def accept(self, *channels: str) -> None:
        self.intake.accept([firing(channel) for channel in channels])

    def claim(self, hook: int = 0) -> Job:
        job = self.jobs[hook].claim()
        assert job is not None
        return job

    def fail(self, *, whole: bool = True, **more: Any) -> None:
        self.finish(self.claim(), Outcome.FAILED, whole=whole, **more)

    def finish(self, job: Job, outcome: Outcome, *, whole: bool | None, **more: Any) -> None:
        result = Result(job.channel, outcome, Action.GET_QR, gateway_failed=whole, **more)
        assert self.jobs[0].finish(job, result)

    def open(self) -> None:
        """Let so many calls fail that the gateway is left alone."""
        for _ in range(backoff.THRESHOLD):
            self.fail()


@pytest.fixture
def hooks(database: Database, clock: StateClock) -> Hooks:
    return Hooks(database, clock)


_MANY = [f"channel {number:02d}" for number in range(30)]


def test_a_gateway_that_fails_is_left_alone_by_all_and_then_tried_once(hooks: Hooks) -> None:
    hooks.accept(*_MANY)
    hooks.open()
    assert [jobs.claim() for jobs in hooks.jobs] == [None, None]
    hooks.clock.seconds += backoff.FIRST_PAUSE_SECONDS - 1
    assert [jobs.claim() for jobs in hooks.jobs] == [None, None]
    hooks.clock.seconds += 2
    trial = hooks.claim()
    assert [jobs.claim() for jobs in hooks.jobs] == [None, None], "one at a time"
    hooks.finish(trial, Outcome.RECONNECTED, whole=False)
    assert [hooks.claim(hook).channel for hook in (0, 1)] == ["channel 06", "channel 07"]


def test_the_pauses_of_the_gateway_grow(hooks: Hooks) -> None:
    hooks.accept(*_MANY)
    hooks.open()
    for pause in (15, 30, 60, 120, 240, 300, 300):
        hooks.clock.seconds += pause - 1
        assert hooks.jobs[1].claim() is None
        hooks.clock.seconds += 2
        hooks.fail()


def test_the_page_says_that_it_rests_exactly_while_it_does(hooks: Hooks) -> None:
    def open_until() -> float | None:
        return RepairHistory(hooks.database, "wpp").present().gateway_rests_until

    hooks.accept(*_MANY)
    assert open_until() is None
    hooks.open()
    assert open_until() == hooks.clock.seconds + backoff.FIRST_PAUSE_SECONDS
    hooks.clock.seconds -= 2 * backoff.LONGEST_PAUSE_SECONDS
    assert open_until() is None, "of a clock that has been put back since"


def test_a_trial_whose_holder_died_is_made_by_another(hooks: Hooks) -> None:
    hooks.accept(*_MANY)
    hooks.open()
    hooks.clock.seconds += 16
    hooks.claim()
    hooks.clock.seconds += 31
    assert hooks.claim(1)


def test_calls_that_were_under_way_do_not_lengthen_the_pause(hooks: Hooks) -> None:
    hooks.accept(*_MANY)
    late = [hooks.claim() for _ in range(4)]
    hooks.open()
    for job in late:
        hooks.finish(job, Outcome.FAILED, whole=True)
    hooks.clock.seconds += 16
    assert hooks.claim()


def test_an_answer_in_between_begins_the_count_anew(hooks: Hooks) -> None:
    hooks.accept(*_MANY)
    for _ in range(5):
        for _ in range(backoff.THRESHOLD - 1):
            hooks.fail()
        hooks.fail(whole=False)
    assert hooks.claim()


def test_a_session_that_fails_alone_does_not_stop_the_others(hooks: Hooks) -> None:
    hooks.accept("loja")
    for attempt in range(1, 10):
        hooks.fail()
        hooks.accept("loja")
        hooks.clock.seconds += _PAUSES.after(attempt) + 1
    hooks.accept("other")
    assert {hooks.claim().channel, hooks.claim().channel} == {"loja", "other"}


def test_a_fault_of_the_hook_says_nothing_of_the_gateway(hooks: Hooks) -> None:
    hooks.accept(*_MANY)
    for _ in range(20):
        hooks.finish(hooks.claim(), Outcome.FAILED, whole=None)


def test_a_look_that_fails_counts(hooks: Hooks) -> None:
    hooks.accept(*_MANY)
    for _ in range(backoff.THRESHOLD):
        hooks.jobs[0].look_later(hooks.claim())
    assert hooks.jobs[0].claim() is None


def test_when_the_gateway_answers_again_what_failed_is_due_at_once(hooks: Hooks) -> None:
    hooks.accept("well")
    hooks.finish(hooks.claim(), Outcome.RECONNECTED, whole=False, status=Status.CONNECTED)
    hooks.accept("well", *_MANY[: backoff.THRESHOLD + 1])
    hooks.open()
    hooks.clock.seconds += 16
    assert hooks.jobs[0].claim() is not None
    hooks.jobs[0].release()
    hooks.finish(hooks.claim(), Outcome.RECONNECTED, whole=False)
    due = [job.channel for job in iter(hooks.jobs[0].claim, None)]
    assert due == _MANY[: backoff.THRESHOLD], "and the one that was repaired keeps its cooldown"


@pytest.mark.parametrize("jump", [-1e8, 1e8])
def test_a_clock_that_jumps_does_not_shut_the_gateway_off(hooks: Hooks, jump: float) -> None:
    hooks.accept(*_MANY)
    hooks.open()
    hooks.clock.seconds += jump
    assert hooks.claim()


class ListOf:
    """A client whose list a test writes."""

    def __init__(self) -> None:
        self.channels: dict[str, Status] | None = {}
        self.calls = 0

    def list_channels(self) -> ChannelList:
        self.calls += 1
        if self.channels is None:
            raise GatewayError(Operation.LIST, Failure.TIMEOUT, "nothing")
        return ChannelList(tuple(Channel(i, s) for i, s in self.channels.items()))


class Watched:
    """Rounds over a list in a test's hands."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._clock = HandMovedClock()
        self.client = ListOf()
        client: Any = self.client
        self.ended: list[tuple[Job, Result]] = []
        self._rounds = Reconciler(
            hooks.backlog, hooks.jobs[0], ChannelListCache(client, self._clock), self._conclude
        )

    def _conclude(self, ended: Sequence[tuple[Job, Result]]) -> None:
        assert all(self._hooks.jobs[0].finish_all(ended))
        self.ended += ended

    def round(self) -> bool:
        self._clock.forward(ROUND_SECONDS + 1)
        self._hooks.clock.seconds += ROUND_SECONDS + 1
        return self._rounds.go()


@pytest.fixture
def watched(hooks: Hooks) -> Watched:
    return Watched(hooks)


def _pause(hooks: Hooks, status: Status | None, attempts: int = 1) -> None:
    """Let repairs of a channel fail, so that the next one waits."""
    hooks.accept("loja")
    for attempt in range(1, attempts + 1):
        hooks.fail(whole=False, status=status)
        if attempt < attempts:
            hooks.accept("loja")
            hooks.clock.seconds += _PAUSES.after(attempt) + 1
    hooks.accept("loja")


def test_nothing_is_asked_where_nothing_waits(hooks: Hooks, watched: Watched) -> None:
    assert not watched.round()
    hooks.accept("loja")
    assert not watched.round(), "that is the workers' work"
    assert watched.client.calls == 0


def test_a_channel_that_came_back_by_itself_is_seen_within_a_round(
    hooks: Hooks, watched: Watched
) -> None:
    _pause(hooks, Status.DISCONNECTED)
    watched.client.channels = {"loja": Status.DISCONNECTED}
    assert not watched.round()
    assert hooks.jobs[0].claim() is None
    watched.client.channels = {"loja": Status.CONNECTED}
    assert watched.round()
    look = hooks.claim()
    assert (look.channel, look.look_only) == ("loja", True)
    hooks.jobs[0].nothing_found(look)
    assert hooks.jobs[0].claim() is None, "it dropped again meanwhile: the pause goes on"
    hooks.clock.seconds += 301
    assert not hooks.claim().look_only


def test_a_channel_that_was_taken_out_is_forgotten_within_a_round(
    hooks: Hooks, watched: Watched
) -> None:
    _pause(hooks, Status.DISCONNECTED)
    watched.client.channels = {"other": Status.CONNECTED}
    assert watched.round()
    assert hooks.claim()


def test_a_gateway_that_came_back_ends_the_pauses(hooks: Hooks, watched: Watched) -> None:
    _pause(hooks, Status.DISCONNECTED)
    hooks.clock.seconds += 301
    hooks.finish(hooks.claim(), Outcome.FAILED, whole=True, status=None)
    watched.client.channels = None
    assert not watched.round()
    watched.client.channels = {"loja": Status.DISCONNECTED}
    assert watched.round()
    assert hooks.claim()


def test_another_status_ends_a_long_pause_but_not_the_cooldown(
    hooks: Hooks, watched: Watched
) -> None:
    _pause(hooks, Status.DISCONNECTED, attempts=4)
    watched.client.channels = {"loja": Status.INITIALIZING}
    assert watched.round()
    assert hooks.jobs[0].claim() is None
    hooks.clock.seconds += _PAUSES.cooldown
    assert hooks.claim()


def test_a_gateway_that_rests_is_not_asked(hooks: Hooks, watched: Watched) -> None:
    hooks.accept(*_MANY)
    hooks.open()
    hooks.clock.seconds -= ROUND_SECONDS
    watched.round()
    assert watched.client.calls == 0


def test_a_silent_channel_is_left_in_its_pause(hooks: Hooks, watched: Watched) -> None:
    hooks.intake.accept([firing("loja", RepairCause.SILENT)])
    hooks.finish(hooks.claim(), Outcome.REQUESTED, whole=False, status=Status.CONNECTED)
    hooks.intake.accept([firing("loja", RepairCause.SILENT)])
    watched.client.channels = {"loja": Status.CONNECTED}
    assert not watched.round()
    assert hooks.jobs[0].claim() is None


def test_of_a_long_queue_those_that_came_back_are_ended_by_one_list(
    hooks: Hooks, watched: Watched
) -> None:
    names = [f"channel {number:03d}" for number in range(250)]
    hooks.accept(*names, "down", "stranger")
    hooks.intake.accept([firing("silent", RepairCause.SILENT)])
    up = dict.fromkeys([*names, "silent"], Status.CONNECTED)
    watched.client.channels = {**up, "down": Status.DISCONNECTED}
    watched.round()
    assert watched.client.calls == 1
    assert [job.channel for job, _ in watched.ended] == names
    assert {(r.outcome, r.action) for _, r in watched.ended} == {(Outcome.RECOVERED, Action.NONE)}
    left = [job.channel for job in iter(hooks.jobs[0].claim, None)]
    assert sorted(left) == ["down", "silent", "stranger"]


def test_of_many_looks_those_that_find_their_channels_well_are_ended_by_one_list(
    hooks: Hooks, watched: Watched
) -> None:
    names = [f"channel {number:03d}" for number in range(50)]
    watched.client.channels = dict.fromkeys(names, Status.CONNECTED)
    hooks.accept(*names)
    watched.round()
    hooks.accept(*names)
    watched.ended.clear()
    watched.round()
    assert [job.channel for job, _ in watched.ended] == names
    assert all(job.look_only for job, _ in watched.ended)
    assert watched.client.calls == 2
    assert hooks.jobs[0].claim() is None


def test_a_short_queue_is_left_to_the_workers(hooks: Hooks, watched: Watched) -> None:
    hooks.accept(*_MANY[:10])
    watched.client.channels = dict.fromkeys(_MANY, Status.CONNECTED)
    watched.round()
    assert watched.client.calls == 0
