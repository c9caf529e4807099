"""What becomes of the alerts of a payload before it is answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.alerts import Alert, AlertStatus, RepairCause
from reconnect_hook.backoff import OLD_NEWS_SECONDS, Backoff
from reconnect_hook.migrate import open_state
from reconnect_hook.models import Action, Job, Outcome, Result
from reconnect_hook.queue import Jobs
from reconnect_hook.repository import ChannelRepository
from tests.support.states import StateClock, firing, locked, resolved, sqlite_url
from zapwatch.db import Database, StateError

_COOLDOWN = 300.0
PAUSES = Backoff(_COOLDOWN)


class Hook:
    """One hook on a state of its own, on a clock moved by hand."""

    def __init__(self, database: Database, clock: StateClock) -> None:
        self.clock = clock
        self.intake = AlertWriter(database, "wpp", Backoff(_COOLDOWN))
        self.jobs = Jobs(database, "wpp", PAUSES)
        self.memory = ChannelRepository(database, "wpp")

    def accept(self, *alerts: Alert) -> list[str]:
        return [str(verdict) for verdict in self.intake.accept(alerts)]

    def claim(self) -> Job:
        job = self.jobs.claim()
        assert job is not None
        return job

    def repair(self, outcome: Outcome, action: Action = Action.GET_QR) -> Job:
        job = self.claim()
        assert self.jobs.finish(job, Result(job.channel, outcome, action))
        return job

    def record(self) -> tuple[int, bool]:
        """Return the failures in a row and whether a QR code waits, of the only channel."""
        (record,) = self.memory.queue().channels
        return record.consecutive_failures, record.qr_required


@pytest.fixture
def clock() -> StateClock:
    return StateClock()


@pytest.fixture
def database(tmp_path: Path, clock: StateClock) -> Iterator[Database]:
    made = open_state(sqlite_url(tmp_path), clock=clock)
    yield made
    made.close()


@pytest.fixture
def hook(database: Database, clock: StateClock) -> Hook:
    return Hook(database, clock)


def test_a_firing_alert_is_accepted_once(hook: Hook) -> None:
    assert hook.accept(firing("Pixel12 Digital", RepairCause.SILENT)) == ["accepted"]
    job = hook.claim()
    assert (job.channel, job.key) == ("Pixel12 Digital", "pixel12digital")
    assert (job.reason, job.look_only) == ("silent", False)
    assert (job.attempt, job.failures, job.waited) == (1, 0, 0)
    assert hook.jobs.claim() is None


def test_a_channel_that_is_queued_or_under_way_is_coalesced(hook: Hook) -> None:
    assert hook.accept(firing()) == ["accepted"]
    assert hook.accept(firing()) == ["coalesced"]
    assert hook.accept(firing("LO JA", RepairCause.SILENT)) == ["coalesced"], "another spelling"
    hook.claim()
    assert hook.accept(firing()) == ["coalesced"]
    assert hook.memory.queue().in_flight == 1


def test_each_channel_of_a_payload_counts_for_itself(hook: Hook) -> None:
    stranger = Alert(AlertStatus.FIRING, None)
    verdicts = hook.accept(firing("a"), stranger, firing("b"), firing("A"), resolved("c"))
    assert verdicts == ["accepted", "ignored", "accepted", "coalesced", "ignored"]
    assert [hook.claim().channel for _ in range(2)] == ["a", "b"]


def test_nothing_for_this_hook_touches_no_state(tmp_path: Path, hook: Hook) -> None:
    with locked(sqlite_url(tmp_path)):
        assert hook.accept() == []
        assert hook.accept(Alert(AlertStatus.FIRING, None)) == ["ignored"]


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (0.0, "cooldown"),
        (_COOLDOWN - 1, "cooldown"),
        (_COOLDOWN + 1, "accepted"),
        (-1.0, "accepted"),
        (-1e9, "accepted"),
        (1e9, "accepted"),
    ],
)
def test_a_channel_is_left_alone_for_a_while_after_it_was_called(
    hook: Hook, seconds: float, verdict: str
) -> None:
    hook.accept(firing())
    hook.repair(Outcome.RECONNECTED)
    # A clock that was put back must not make the cooldown last for ever.
    hook.clock.seconds += seconds
    assert hook.accept(firing()) == [verdict]
    assert hook.accept(firing("other")) == ["accepted"]


@pytest.mark.parametrize(
    ("seconds", "reason", "verdict"),
    [
        (1.0, RepairCause.DISCONNECTED, "cooldown"),
        (OLD_NEWS_SECONDS - 1, RepairCause.DISCONNECTED, "cooldown"),
        (OLD_NEWS_SECONDS + 1, RepairCause.DISCONNECTED, "accepted"),
        (-1.0, RepairCause.DISCONNECTED, "accepted"),
        # Being connected proves nothing here.
        (1.0, RepairCause.SILENT, "accepted"),
        (1.0, RepairCause.MANUAL, "accepted"),
    ],
)
def test_after_a_repair_that_called_nothing_only_old_news_waits(
    hook: Hook, seconds: float, reason: RepairCause, verdict: str
) -> None:
    hook.accept(firing())
    hook.repair(Outcome.RECOVERED, Action.NONE)
    hook.clock.seconds += seconds
    assert hook.accept(firing("loja", reason)) == [verdict]
    if verdict == "accepted":
        assert not hook.claim().look_only


def test_old_news_is_looked_after_once_and_forgotten(hook: Hook) -> None:
    hook.accept(firing())
    hook.repair(Outcome.RECOVERED, Action.NONE)
    for _ in range(3):
        hook.clock.seconds += OLD_NEWS_SECONDS - 1
        assert hook.accept(firing(), firing("LOJA")) == ["cooldown"] * 2
        assert hook.jobs.claim() is None
        hook.clock.seconds += 2
        look = hook.claim()
        assert (look.look_only, look.attempt) == (True, 1)
        hook.jobs.old_news([(look, Result("loja", Outcome.RECOVERED))])
        assert hook.memory.queue().waiting == 0


def test_what_looks_like_old_news_and_is_none_is_repaired(hook: Hook) -> None:
    hook.accept(firing())
    hook.repair(Outcome.RECOVERED, Action.NONE)
    hook.clock.seconds += 1
    assert hook.accept(firing()) == ["cooldown"]
    hook.clock.seconds += OLD_NEWS_SECONDS
    hook.jobs.nothing_found(hook.claim())
    job = hook.claim()
    assert (job.look_only, job.reason, job.attempt) == (False, "disconnected", 1)


def test_who_has_just_looked_itself_does_not_wait_for_old_news(
    hook: Hook, database: Database
) -> None:
    hook.accept(firing())
    hook.repair(Outcome.RECOVERED, Action.NONE)
    intake = AlertWriter(database, "wpp", PAUSES, keep=False)
    assert [str(verdict) for verdict in intake.accept([firing()])] == ["accepted"]


def test_an_episode_goes_on_until_the_channel_is_seen_connected(hook: Hook) -> None:
    for attempt in (1, 2, 3):
        assert hook.accept(firing()) == ["accepted" if attempt == 1 else "coalesced"]
        job = hook.repair(Outcome.FAILED)
        assert (job.attempt, job.failures) == (attempt, attempt - 1)
        hook.clock.seconds += PAUSES.after(attempt) + 1
    assert hook.record() == (3, False)
    assert hook.accept(resolved(), resolved("LOJA")) == ["accepted", "accepted"]
    assert hook.accept(resolved()) == ["accepted"]
    assert hook.record() == (3, False), "nobody has looked yet"
    look = hook.claim()
    assert look.look_only
    assert hook.jobs.claim() is None, "one look for all"
    assert hook.jobs.finish(look, Result("loja", Outcome.RECOVERED))
    assert hook.record() == (0, False)
    hook.clock.seconds += OLD_NEWS_SECONDS + 1
    assert hook.accept(firing()) == ["accepted"]
    assert hook.claim().attempt == 1


def test_an_alert_in_a_pause_is_kept_until_its_end(hook: Hook) -> None:
    hook.accept(firing())
    hook.repair(Outcome.RECONNECTED)
    hook.clock.seconds += 60
    assert hook.accept(firing("Loja", RepairCause.SILENT)) == ["cooldown"]
    assert hook.accept(firing("Loja", RepairCause.SILENT)) == ["cooldown"]
    assert hook.jobs.claim() is None
    assert hook.memory.queue().waiting == 1
    hook.clock.seconds += _COOLDOWN - 61
    assert hook.jobs.claim() is None
    hook.clock.seconds += 2
    job = hook.claim()
    assert (job.reason, job.attempt, job.waited) == ("silent", 1, _COOLDOWN - 59)
    assert hook.jobs.claim() is None, "one for both"


def test_who_does_not_stay_keeps_nothing(hook: Hook, database: Database) -> None:
    intake = AlertWriter(database, "wpp", PAUSES, keep=False)
    jobs = Jobs(database, "wpp", PAUSES, retry=False)
    intake.accept([firing()])
    job = jobs.claim()
    assert job is not None
    assert jobs.finish(job, Result("loja", Outcome.FAILED, Action.GET_QR))
    assert intake.accept([firing()]) == ["cooldown"]
    hook.clock.seconds += 1e6
    assert jobs.claim() is None


_MINUTES = [5, 10, 20, 40, 60, 60]


def test_the_pauses_between_repairs_that_fail_grow_to_an_hour(hook: Hook) -> None:
    hook.accept(firing())
    for attempt, minutes in enumerate(_MINUTES, start=1):
        job = hook.repair(Outcome.STILL_DISCONNECTED)
        assert job.attempt == attempt
        # The first two come by themselves; later ones need to hear that it still fires.
        waiting = hook.memory.queue().waiting
        assert waiting == (1 if minutes <= 10 else 0)
        hook.clock.seconds += 1
        assert hook.accept(firing()) == ["cooldown"]
        hook.clock.seconds += 60 * minutes - 2
        assert hook.jobs.claim() is None
        hook.clock.seconds += 2
    assert hook.claim().failures == len(_MINUTES)


@pytest.mark.parametrize("outcome", [Outcome.REQUESTED, Outcome.QR_REQUIRED])
def test_what_did_not_fail_is_not_tried_again_unasked(hook: Hook, outcome: Outcome) -> None:
    hook.accept(firing("loja", RepairCause.SILENT))
    hook.repair(outcome)
    assert hook.memory.queue().waiting == 0
    hook.clock.seconds += _COOLDOWN + 1
    assert hook.accept(firing("loja", RepairCause.SILENT)) == ["accepted"]
    hook.repair(outcome)
    hook.clock.seconds += _COOLDOWN + 1
    assert hook.accept(firing("loja", RepairCause.SILENT)) == ["cooldown"], (
        "but asked less and less"
    )


@pytest.mark.parametrize(
    ("before", "now", "seconds"),
    [
        # A silent channel that drops is another trouble, so the long pause is over.
        (RepairCause.SILENT, RepairCause.DISCONNECTED, 300),
        (RepairCause.NEVER_HEARD, RepairCause.DISCONNECTED, 300),
        # The other way round it may be an old notification.
        (RepairCause.DISCONNECTED, RepairCause.SILENT, 1200),
        (RepairCause.SILENT, RepairCause.SILENT, 1200),
    ],
)
@pytest.mark.parametrize("kept", [False, True])
def test_a_change_of_status_ends_a_long_pause_but_not_the_cooldown(
    hook: Hook, before: RepairCause, now: RepairCause, seconds: float, kept: bool
) -> None:
    hook.accept(firing("loja", before))
    for attempt in (1, 2, 3):
        hook.repair(Outcome.REQUESTED)
        hook.clock.seconds += PAUSES.after(attempt) + 1 if attempt < 3 else 1
        if attempt < 3 or kept:
            hook.accept(firing("loja", before))
    assert hook.accept(firing("loja", now)) == ["cooldown"]
    hook.clock.seconds += seconds - 3
    assert hook.jobs.claim() is None
    hook.clock.seconds += 3
    assert hook.claim().reason is (now if seconds == 300 or not kept else before)


def test_a_resolved_alert_has_a_paused_channel_looked_at(hook: Hook) -> None:
    hook.accept(firing())
    hook.repair(Outcome.FAILED)
    hook.clock.seconds += 100
    assert hook.accept(resolved()) == ["accepted"]
    look = hook.claim()
    assert look.look_only
    assert hook.accept(firing()) == ["cooldown"], "the pause goes on"
    hook.jobs.nothing_found(look)
    hook.clock.seconds += 199
    assert hook.jobs.claim() is None
    hook.clock.seconds += 2
    assert not hook.claim().look_only


def test_an_alert_during_a_look_in_the_cooldown_waits_behind_it(hook: Hook) -> None:
    hook.accept(firing())
    hook.repair(Outcome.QR_REQUIRED)
    hook.accept(resolved())
    look = hook.claim()
    assert hook.accept(firing("loja", RepairCause.SILENT)) == ["cooldown"]
    hook.jobs.nothing_found(look)
    hook.clock.seconds += _COOLDOWN + 1
    job = hook.claim()
    assert (job.look_only, job.reason) == (False, "silent")


def test_there_is_nothing_to_look_for_where_no_episode_is(hook: Hook) -> None:
    hook.accept(firing())
    hook.repair(Outcome.RECONNECTED)
    assert hook.accept(resolved()) == ["accepted"]
    assert hook.jobs.claim() is None


def test_a_repair_under_way_needs_no_look_beside_it(hook: Hook) -> None:
    hook.accept(firing())
    hook.repair(Outcome.FAILED)
    hook.clock.seconds += _COOLDOWN + 1
    hook.accept(firing())
    job = hook.claim()
    assert hook.accept(resolved()) == ["accepted"]
    assert hook.jobs.claim() is None
    assert hook.jobs.finish(job, Result("loja", Outcome.FAILED))
    assert hook.record() == (2, False)


def test_a_channel_of_which_another_alert_still_fires_is_in_its_episode(hook: Hook) -> None:
    hook.accept(firing())
    hook.repair(Outcome.FAILED)
    hook.clock.seconds += _COOLDOWN + 1
    both: Sequence[Alert] = [resolved("loja", RepairCause.SILENT), firing(), resolved()]
    assert hook.accept(*both) == ["ignored", "coalesced", "ignored"]
    assert hook.record() == (1, False)


def test_a_resolved_alert_of_an_unknown_channel_is_ignored(hook: Hook) -> None:
    assert hook.accept(resolved("stranger")) == ["ignored"]
    assert hook.memory.queue().channels == ()
    assert hook.jobs.claim() is None


def test_a_resolved_alert_has_a_waiting_qr_code_looked_after(hook: Hook) -> None:
    hook.accept(firing())
    hook.repair(Outcome.QR_REQUIRED)
    assert hook.record() == (0, True)
    assert hook.accept(resolved()) == ["accepted"]
    assert hook.record() == (0, True), "nobody knows yet"
    assert hook.claim().look_only


def test_a_firing_alert_makes_a_repair_of_a_look(hook: Hook) -> None:
    hook.accept(firing())
    hook.repair(Outcome.QR_REQUIRED)
    hook.accept(resolved())
    look = hook.claim()
    hook.clock.seconds += _COOLDOWN + 1
    assert hook.accept(firing("loja", RepairCause.SILENT)) == ["accepted"]
    assert hook.accept(firing("loja", RepairCause.SILENT)) == ["coalesced"]
    hook.jobs.nothing_found(look)
    job = hook.claim()
    assert (job.look_only, job.reason, job.waited) == (False, "silent", 0)
    # The same hook's thread that was just looking leaves it alone.
    hook.jobs.nothing_found(look)
    hook.jobs.look_later(look)
    assert not hook.jobs.finish(look, Result("loja", Outcome.RECOVERED))
    assert hook.jobs.finish(job, Result("loja", Outcome.RECONNECTED))


def test_an_alert_that_cannot_be_stored_is_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zapwatch.db._TIMEOUT", 0.05)
    database = open_state(sqlite_url(tmp_path))
    intake = AlertWriter(database, "wpp", Backoff(_COOLDOWN))
    with locked(sqlite_url(tmp_path)):
        with pytest.raises(StateError, match="locked"):
            intake.accept([firing()])
        assert ChannelRepository(database, "wpp").queue().waiting == 0, (
            "reading waits for no writer"
        )
    assert [str(verdict) for verdict in intake.accept([firing()])] == ["accepted"]
    database.close()
