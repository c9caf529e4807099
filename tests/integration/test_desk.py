"""What people ask for at the page, on both kinds of state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.alerts import RepairCause
from reconnect_hook.backoff import Backoff
from reconnect_hook.migrate import open_state
from reconnect_hook.models import Action, Outcome, Result
from reconnect_hook.queue import Backlog, Jobs
from reconnect_hook.repository import ChannelRepository, OperatorActions, RepairHistory, episodes
from tests.support.states import StateClock, firing, sqlite_url


class Office:
    """A desk with everything around it, and no worker."""

    def __init__(self, url: sa.URL, clock: StateClock) -> None:
        self.clock = clock
        self.database = open_state(url, clock=clock)
        pauses = Backoff(300)
        self.intake = AlertWriter(self.database, "wpp", pauses)
        self.jobs = Jobs(self.database, "wpp", pauses)
        self.backlog = Backlog(self.database, "wpp", pauses)
        self.memory = ChannelRepository(self.database, "wpp")
        self.history = RepairHistory(self.database, "wpp")
        self.woken = 0
        self.desk = OperatorActions(self.database, "wpp", self.intake, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def repaired(self, outcome: Outcome) -> None:
        job = self.jobs.claim()
        assert job is not None
        result = Result("Loja", outcome, Action.GET_QR, "words", status="disconnected")
        assert self.jobs.finish(job, result)


@pytest.fixture(params=["sqlite", "mariadb"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    url = sqlite_url(tmp_path)
    if request.param == "mariadb":
        url = request.getfixturevalue("database")
    made = Office(url, StateClock())
    yield made
    made.database.close()


def test_nothing_is_claimed_for_a_paused_channel_until_the_pause_is_over(office: Office) -> None:
    office.desk.pause("Loja", 3600)
    office.intake.accept([firing("loja")])
    assert office.jobs.claim() is None
    assert office.backlog.due() == []
    assert office.memory.queue().paused == {"Loja"}
    assert office.history.present().paused["loja"].until == office.clock.seconds + 3600
    office.clock.seconds += 3601
    assert office.memory.queue().paused == frozenset()
    assert office.jobs.claim() is not None


def test_a_pause_without_end_ends_when_somebody_resumes(office: Office) -> None:
    office.desk.pause("Loja", 60)
    office.desk.pause("Loja", None)
    office.intake.accept([firing("loja")])
    office.clock.seconds += 1e8
    assert office.jobs.claim() is None
    assert office.history.present().paused["loja"].until is None
    office.desk.resume("LOJA")
    assert office.woken == 1
    assert office.jobs.claim() is not None


def test_a_pause_holds_back_one_channel_alone(office: Office) -> None:
    office.desk.pause("Loja", None)
    office.intake.accept([firing("loja"), firing("other")])
    job = office.jobs.claim()
    assert job is not None
    assert job.key == "other"
    assert office.jobs.claim() is None


def test_nobody_reconnects_a_paused_channel(office: Office) -> None:
    office.desk.pause("Loja", None)
    assert not office.desk.reconnect("loja")
    assert office.history.present().waiting == {}


def test_who_asks_for_a_repair_now_does_not_wait_for_the_cooldown(office: Office) -> None:
    office.intake.accept([firing("loja")])
    office.repaired(Outcome.STILL_DISCONNECTED)
    waiting = office.history.present().waiting["loja"]
    assert waiting.due_at == office.clock.seconds + 300
    assert office.jobs.claim() is None
    assert office.desk.reconnect("loja")
    job = office.jobs.claim()
    assert job is not None
    assert job.reason is RepairCause.MANUAL
    assert office.history.present().waiting["loja"].due_at is None, "under way"


def test_two_presses_are_one_repair(office: Office) -> None:
    assert office.desk.reconnect("loja")
    assert office.desk.reconnect("Loja")
    assert office.jobs.claim() is not None
    assert office.desk.reconnect("loja"), "while it is under way"
    assert office.jobs.claim() is None


def test_a_look_ends_the_wait_for_a_scan(office: Office) -> None:
    office.intake.accept([firing("loja")])
    office.repaired(Outcome.QR_REQUIRED)
    assert office.history.present().remembered["loja"].qr_required
    office.desk.look("loja")
    job = office.jobs.claim()
    assert job is not None
    assert job.look_only


def test_the_history_is_told_in_episodes(office: Office) -> None:
    for outcome in (
        Outcome.STILL_DISCONNECTED,
        Outcome.RECONNECTED,
        Outcome.FAILED,
    ):
        office.desk.reconnect("loja")
        office.repaired(outcome)
        office.clock.seconds += 1000
    found = office.history.of_channel("loja")
    told = [[attempt.outcome for attempt in one] for one in episodes(found)]
    assert told == [["failed"], ["reconnected", "still_disconnected"]]
    assert [one.id for one in office.history.last_of_each()] == [found[0].id]
    assert office.history.ended_since(office.clock.seconds - 1000) == [found[0]]
    assert office.history.of_channel("other") == []
