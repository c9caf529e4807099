"""The hook's queue and memory, on SQLite and on MariaDB: every test runs on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.alerts import RepairCause
from reconnect_hook.backoff import Backoff
from reconnect_hook.migrate import open_state, upgrade
from reconnect_hook.models import Action, Job, Outcome, Result
from reconnect_hook.queue import LEASE_SECONDS, LOOK_AGAIN_SECONDS, Backlog, Jobs
from reconnect_hook.repository import ChannelRepository
from reconnect_hook.schema import repairs
from tests.support.states import StateClock, firing, resolved, sqlite_url
from tests.support.threads import at_once
from zapwatch.clock import Clock
from zapwatch.db import Database, StateError, UnavailableError, now

PAUSES = Backoff(0)


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> sa.URL:
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    made = request.getfixturevalue("database")
    assert isinstance(made, sa.URL)
    return made


@pytest.fixture
def opened() -> Iterator[Callable[..., Database]]:
    """Open databases that are closed in the end."""
    databases: list[Database] = []

    def open_(url: sa.URL, clock: Clock | None = None) -> Database:
        databases.append(open_state(url, clock=clock))
        return databases[-1]

    yield open_
    for database in databases:
        database.close()


@pytest.fixture
def state(url: sa.URL, opened: Callable[..., Database], clock: StateClock) -> Database:
    return opened(url, clock)


@pytest.fixture
def other(
    url: sa.URL, state: Database, opened: Callable[..., Database], clock: StateClock
) -> Database:
    """Make the state as another hook sees it."""
    return opened(url, clock)


@pytest.fixture
def clock() -> StateClock:
    return StateClock()


def _accept(database: Database, *channels: str, cooldown: float = 300.0) -> list[str]:
    alerts = [firing(channel) for channel in channels]
    return [
        str(verdict) for verdict in AlertWriter(database, "wpp", Backoff(cooldown)).accept(alerts)
    ]


def _claim(jobs: Jobs) -> Job:
    job = jobs.claim()
    assert job is not None
    return job


def _result(job: Job, outcome: Outcome, **more: Any) -> Result:
    return Result(job.channel, outcome, more.pop("action", Action.GET_QR), **more)


def _records(database: Database) -> dict[str, tuple[int, bool]]:
    records = ChannelRepository(database, "wpp").queue().channels
    return {r.channel: (r.consecutive_failures, r.qr_required) for r in records}


def test_hooks_that_start_at_once_make_the_tables_once(url: sa.URL) -> None:
    databases = at_once(*[lambda: open_state(url)] * 8)
    assert _accept(databases[0], "loja") == ["accepted"]
    assert [ChannelRepository(one, "wpp").queue().waiting for one in databases] == [1] * 8
    for one in databases:
        one.close()


def test_hooks_that_make_the_same_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    for number in range(12):
        url = sqlite_url(tmp_path / str(number))
        for one in at_once(*[lambda u=url: open_state(u)] * 8):
            one.close()


def test_of_alerts_at_once_at_two_hooks_exactly_one_makes_the_repair(
    state: Database, other: Database
) -> None:
    for number in range(10):
        channel = f"channel {number}"
        work = [lambda d=d, c=channel: _accept(d, c) for d in (state, other) * 4]
        verdicts = [verdict for (verdict,) in at_once(*work)]
        assert sorted(verdicts) == ["accepted"] + ["coalesced"] * 7
    assert ChannelRepository(other, "wpp").queue().waiting == 10


def test_a_repair_that_ends_while_an_alert_is_stored_is_followed_by_its_pause(
    database: sa.URL, opened: Callable[[sa.URL], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On MariaDB, where one hook can end what the other is just reading of."""
    here, there = opened(database), opened(database)
    intake, jobs = AlertWriter(here, "wpp", Backoff(300.0)), Jobs(there, "wpp", Backoff(300.0))
    judge = intake._judge
    under_way: list[Job] = []

    def judge_before_the_other_begins(payloads: Any) -> Any:
        found = judge(payloads)
        assert _accept(there, "loja") == ["accepted"]
        under_way.append(_claim(jobs))
        return found

    def end_it(*_: object) -> None:
        if under_way:
            job = under_way.pop()
            assert jobs.finish(job, _result(job, Outcome.QR_REQUIRED))

    monkeypatch.setattr(intake, "_judge", judge_before_the_other_begins)
    sa.event.listen(here._engine, "after_cursor_execute", end_it)
    (verdict,) = intake.accept([firing("loja")])
    assert verdict in {"coalesced", "cooldown"}
    assert under_way == []
    assert jobs.claim() is None, "it has just been repaired"


def test_payloads_with_the_same_channels_in_any_order_do_not_wait_for_each_other(
    state: Database, other: Database
) -> None:
    names = [f"channel {number}" for number in range(20)]
    work = [lambda d=d, n=n: _accept(d, *n) for d, n in [(state, names), (other, names[::-1])] * 3]
    verdicts = [verdict for some in at_once(*work) for verdict in some]
    assert verdicts.count("accepted") == 20
    assert verdicts.count("coalesced") == 100


def test_claims_at_once_never_get_the_same_repair(state: Database, other: Database) -> None:
    _accept(state, *[f"channel {number}" for number in range(8)])
    holders = [Jobs(database, "wpp", PAUSES) for database in (state, other) * 4]
    jobs = at_once(*[holder.claim for holder in holders])
    ids = [job.id for job in jobs if job]
    assert len(ids) == len(set(ids))
    assert ChannelRepository(state, "wpp").queue().in_flight == len(ids)
    while (late := holders[0].claim()) is not None:
        ids.append(late.id)
    assert len(set(ids)) == len(ids) == 8


def test_the_oldest_repair_comes_first(state: Database, clock: StateClock) -> None:
    for channel in ("c", "a", "b"):
        _accept(state, channel)
        clock.seconds += 5
    jobs = Jobs(state, "wpp", PAUSES)
    claimed = [_claim(jobs) for _ in range(3)]
    assert [(job.channel, job.waited) for job in claimed] == [("c", 15), ("a", 10), ("b", 5)]


def test_gateways_do_not_see_each_other(state: Database) -> None:
    AlertWriter(state, "wpp", Backoff(300)).accept([firing("loja")])
    assert Jobs(state, "second", PAUSES).claim() is None
    assert ChannelRepository(state, "second").queue().waiting == 0
    verdicts = AlertWriter(state, "second", Backoff(300)).accept([firing("loja")])
    assert [str(verdict) for verdict in verdicts] == ["accepted"]
    assert _claim(Jobs(state, "second", PAUSES)).channel == "loja"


def test_a_lease_that_is_not_renewed_is_taken_over(
    state: Database, other: Database, clock: StateClock
) -> None:
    _accept(state, "loja")
    first, second = Jobs(state, "wpp", PAUSES), Jobs(other, "wpp", PAUSES)
    job = _claim(first)
    clock.seconds += LEASE_SECONDS - 1
    assert second.claim() is None
    clock.seconds += 2
    taken = _claim(second)
    assert (taken.id, taken.attempt) == (job.id, 1)
    assert first.claim() is None
    first.renew()
    first.release()
    first.nothing_found(job)
    first.look_later(job)
    assert not first.finish(job, _result(job, Outcome.FAILED))
    assert ChannelRepository(state, "wpp").outcome(job.id) is None
    assert second.finish(taken, _result(taken, Outcome.RECONNECTED))
    assert ChannelRepository(state, "wpp").outcome(job.id) is Outcome.RECONNECTED
    assert not second.finish(taken, _result(taken, Outcome.FAILED)), "it is done"
    assert _records(state) == {"loja": (0, False)}


def test_a_lease_that_is_renewed_is_kept(
    state: Database, other: Database, clock: StateClock
) -> None:
    _accept(state, "loja")
    first, second = Jobs(state, "wpp", PAUSES), Jobs(other, "wpp", PAUSES)
    job = _claim(first)
    for _ in range(10):
        clock.seconds += LEASE_SECONDS - 1
        first.renew()
        assert second.claim() is None
    assert first.finish(job, _result(job, Outcome.RECONNECTED))


def test_what_is_released_is_freeat_once(state: Database, other: Database) -> None:
    _accept(state, "a", "b")
    first, second = Jobs(state, "wpp", PAUSES), Jobs(other, "wpp", PAUSES)
    ids = [_claim(first).id for _ in range(2)]
    assert second.claim() is None
    first.release()
    assert ChannelRepository(state, "wpp").queue().waiting == 2
    assert [_claim(second).id for _ in range(2)] == ids


@pytest.mark.parametrize("jump", [-1e8, 1e8], ids=["back", "forth"])
def test_a_lease_ends_although_the_clock_jumps(
    state: Database, clock: StateClock, jump: float
) -> None:
    _accept(state, "loja")
    job = _claim(Jobs(state, "wpp", PAUSES))
    clock.seconds += jump
    assert _claim(Jobs(state, "wpp", PAUSES)).id == job.id


@pytest.mark.parametrize("jump", [-1e8, 1e8], ids=["back", "forth"])
def test_a_queued_repair_does_not_wait_for_a_clock_that_was_put_back(
    state: Database, clock: StateClock, jump: float
) -> None:
    _accept(state, "loja")
    clock.seconds += jump
    assert _claim(Jobs(state, "wpp", PAUSES)).waited == max(0, jump)


def test_the_databases_clock_has_fractions_and_the_age_of_the_world(
    url: sa.URL, opened: Callable[..., Database]
) -> None:
    state = opened(url)
    with state.read() as connection:
        first = now(connection)
    with state.read() as connection:
        assert first <= now(connection) < first + 600
    assert first > 1_700_000_000


def _look(state: Database, jobs: Jobs) -> Job:
    """Have a channel whose QR code was scanned looked after."""
    _accept(state, "loja", cooldown=0)
    job = _claim(jobs)
    assert jobs.finish(job, _result(job, Outcome.QR_REQUIRED))
    verdicts = AlertWriter(state, "wpp", Backoff(0)).accept([resolved("loja")])
    assert [str(verdict) for verdict in verdicts] == ["accepted"]
    look = _claim(jobs)
    assert look.look_only
    return look


def test_a_look_that_finds_nothing_is_forgotten(state: Database, clock: StateClock) -> None:
    jobs = Jobs(state, "wpp", PAUSES)
    look = _look(state, jobs)
    jobs.nothing_found(look)
    assert ChannelRepository(state, "wpp").queue().waiting == 0
    assert _records(state) == {"loja": (0, True)}


def test_a_look_is_no_repair(state: Database) -> None:
    jobs, memory = Jobs(state, "wpp", PAUSES), ChannelRepository(state, "wpp")
    assert memory.latest_repair("loja") is None
    look = _look(state, jobs)
    latest = memory.latest_repair("loja")
    assert latest is not None
    assert latest < look.id
    assert memory.outcome(latest) is Outcome.QR_REQUIRED


def test_a_look_that_could_not_be_taken_is_taken_later(state: Database, clock: StateClock) -> None:
    jobs = Jobs(state, "wpp", PAUSES)
    look = _look(state, jobs)
    jobs.look_later(look)
    assert jobs.claim() is None
    clock.seconds += LOOK_AGAIN_SECONDS - 1
    assert jobs.claim() is None
    clock.seconds += 2
    assert _claim(jobs).id == look.id


def test_a_look_that_waits_does_not_hold_up_a_repair(state: Database, clock: StateClock) -> None:
    jobs = Jobs(state, "wpp", PAUSES)
    jobs.look_later(_look(state, jobs))
    clock.seconds += 1
    assert _accept(state, "loja", cooldown=0) == ["accepted"]
    job = _claim(jobs)
    assert (job.look_only, job.waited) == (False, 0)


class Severed(Database):
    """Loses the connection after the commit and before the answer to it."""

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        with super().write() as connection:
            yield connection
        raise UnavailableError("lost the connection")


def test_what_was_claimed_without_knowing_it_is_claimed_again(
    url: sa.URL, state: Database, clock: StateClock
) -> None:
    _accept(state, "loja")
    jobs = Jobs(state, "wpp", PAUSES)
    severed = Severed(url, upgrade, clock=clock)
    jobs._database = severed
    with pytest.raises(StateError):
        jobs.claim()
    severed.close()
    jobs._database = state
    assert ChannelRepository(state, "wpp").queue().in_flight == 1
    for _ in range(2):
        assert jobs.claim() is None
        clock.seconds += LEASE_SECONDS * 0.6
        jobs.renew()
    assert _claim(jobs).channel == "loja"
    assert jobs.claim() is None


class Intruding(Database):
    """Lets something happen between the two transactions of a claim."""

    def __init__(self, url: sa.URL, clock: StateClock) -> None:
        super().__init__(url, upgrade, clock=clock)
        self.meanwhile: Callable[[], object] | None = None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        with super().read() as connection:
            yield connection
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


def test_a_look_that_becomes_a_repair_while_it_is_claimed_is_claimed_as_one(
    url: sa.URL, state: Database, clock: StateClock
) -> None:
    intruding = Intruding(url, clock)
    jobs = Jobs(intruding, "wpp", PAUSES)
    looking = Jobs(state, "wpp", PAUSES)
    _look(state, looking)
    looking.release()
    intruding.meanwhile = lambda: AlertWriter(state, "wpp", Backoff(0)).accept(
        [firing("loja", RepairCause.SILENT)]
    )
    job = _claim(jobs)
    assert (job.look_only, job.reason) == (False, "silent"), "it was accepted: it must be repaired"
    intruding.close()


def test_a_look_that_is_put_off_while_it_is_claimed_stays_put_off(
    url: sa.URL, state: Database, clock: StateClock
) -> None:
    intruding = Intruding(url, clock)
    jobs = Jobs(intruding, "wpp", PAUSES)
    looking = Jobs(state, "wpp", PAUSES)
    look = _look(state, looking)
    clock.seconds += LEASE_SECONDS + 1
    intruding.meanwhile = lambda: looking.look_later(look)
    assert jobs.claim() is None
    intruding.close()


@pytest.mark.parametrize(
    ("outcome", "failures", "qr_required"),
    [
        (Outcome.RECOVERED, 0, False),
        (Outcome.RECONNECTED, 0, False),
        (Outcome.REQUESTED, 2, True),
        (Outcome.QR_REQUIRED, 2, True),
        (Outcome.FAILED, 3, True),
        (Outcome.STILL_DISCONNECTED, 3, True),
        (Outcome.UNKNOWN_CHANNEL, None, None),
    ],
)
def test_each_outcome_is_remembered(
    state: Database, outcome: Outcome, failures: int | None, qr_required: bool | None
) -> None:
    jobs = Jobs(state, "wpp", PAUSES)
    for number, before in enumerate((Outcome.FAILED, Outcome.QR_REQUIRED, Outcome.FAILED), 1):
        _accept(state, "loja", cooldown=0)
        job = _claim(jobs)
        assert job.attempt == number
        assert jobs.finish(job, _result(job, before))
    assert _records(state) == {"loja": (2, True)}
    _accept(state, "loja", cooldown=0)
    job = _claim(jobs)
    assert (job.attempt, job.failures) == (4, 2)
    listed = outcome is not Outcome.UNKNOWN_CHANNEL
    detail = "two\nlines " + "x" * 600
    assert jobs.finish(job, _result(job, outcome, detail=detail, listed=listed))
    assert ChannelRepository(state, "wpp").outcome(job.id) is outcome
    known = {"loja": (failures, qr_required)} if listed else {}
    assert _records(state) == known
    assert ChannelRepository(state, "wpp").queue().waiting == 0


def test_what_only_an_alert_names_is_not_remembered(state: Database) -> None:
    jobs = Jobs(state, "wpp", PAUSES)
    _accept(state, "stranger")
    job = _claim(jobs)
    assert jobs.finish(job, _result(job, Outcome.FAILED, action=Action.NONE, listed=False))
    assert _records(state) == {}
    _accept(state, "loja")
    job = _claim(jobs)
    assert jobs.finish(job, _result(job, Outcome.STILL_DISCONNECTED))
    _accept(state, "loja", cooldown=0)
    job = _claim(jobs)
    assert jobs.finish(job, _result(job, Outcome.FAILED, action=Action.NONE, listed=False))
    assert _records(state) == {"loja": (2, False)}, "this one is known"


@pytest.mark.parametrize(
    "channel",
    [
        "ação 🏠",
        "a'b\"c\\d",
        "%s {} ; DROP TABLE repairs",
        "../x",
        "{{ .x }}",
        "x" * 255,
        "ß" * 127,
    ],
)
def test_any_channel_can_be_stored(state: Database, channel: str) -> None:
    assert _accept(state, channel) == ["accepted"]
    jobs = Jobs(state, "wpp", PAUSES)
    job = _claim(jobs)
    assert job.channel == channel
    assert jobs.finish(job, _result(job, Outcome.QR_REQUIRED))
    assert _records(state) == {channel: (0, True)}


def test_channels_that_only_look_alike_are_two(state: Database) -> None:
    channels = ["acao", "ação", "açao", "a", "á"]
    assert _accept(state, *channels) == ["accepted"] * 5


def test_two_unicode_forms_of_a_name_are_one_channel(state: Database) -> None:
    assert _accept(state, "\u00e1", "a\u0301") == ["accepted", "coalesced"]


def test_history_goes_after_90_days_and_work_stays(state: Database, clock: StateClock) -> None:
    jobs, memory = Jobs(state, "wpp", PAUSES), ChannelRepository(state, "wpp")
    _accept(state, "old", "stuck")
    old, stuck = _claim(jobs), _claim(jobs)
    assert jobs.finish(old, _result(old, Outcome.RECONNECTED))
    clock.seconds += 89 * 86400
    _accept(state, "new")
    new = _claim(jobs)
    assert new.channel == "new", "the stuck one is still in this holder's hands"
    assert jobs.finish(new, _result(new, Outcome.FAILED))
    memory.prune()
    assert memory.outcome(old.id) is Outcome.RECONNECTED
    clock.seconds += 2 * 86400
    memory.prune()
    assert memory.outcome(old.id) is None
    assert memory.outcome(new.id) is Outcome.FAILED
    assert memory.latest_repair("stuck") == stuck.id
    assert _records(state).keys() == {"old", "new"}


def test_a_long_history_goes_in_small_transactions(
    state: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with state.write() as connection:
        at = now(connection)
        columns = "(gateway, `key`, channel, reason, look_only, accepted_at, finished_at)"
        old = at - 91 * 86400
        rows = [{"at": old + number / 1000} for number in range(2500)] + [{"at": at - 89 * 86400}]
        connection.execute(
            sa.text(f"INSERT INTO repairs {columns} VALUES ('wpp', 'a', 'A', 'silent', 0, 1, :at)"),
            rows,
        )
    transactions = []
    write = state.write

    def counted() -> Any:
        transactions.append(1)
        return write()

    monkeypatch.setattr(state, "write", counted)
    ChannelRepository(state, "wpp").prune()
    assert len(transactions) == 3
    with state.read() as connection:
        left = connection.scalars(sa.select(repairs.c.finished_at)).all()
    assert left == [pytest.approx(at - 89 * 86400)]


def test_the_queue_is_counted(state: Database, other: Database) -> None:
    _accept(state, "a", "b", "c")
    jobs = Jobs(state, "wpp", PAUSES)
    _claim(jobs)
    job = _claim(jobs)
    assert jobs.finish(job, _result(job, Outcome.QR_REQUIRED))
    queue = ChannelRepository(other, "wpp").queue()
    assert (queue.waiting, queue.in_flight) == (1, 1)
    assert _records(other) == {"b": (0, True)}


def test_it_is_noted_since_when_no_message_is_known(state: Database, clock: StateClock) -> None:
    memory = ChannelRepository(state, "wpp")
    both = {"a": "A", "b": "B"}
    assert memory.note_unheard(both) == {"a": 0, "b": 0}
    clock.seconds += 100
    assert memory.note_unheard(both) == {"a": 100, "b": 100}
    assert memory.note_unheard({"a": "A"}) == {"a": 100}
    clock.seconds += 100
    assert memory.note_unheard(both) == {"a": 200, "b": 0}, "b was heard meanwhile"


def test_a_clock_that_was_put_back_does_not_keep_a_channel_from_being_noticed(
    state: Database, clock: StateClock
) -> None:
    memory = ChannelRepository(state, "wpp")
    memory.note_unheard({"a": "A"})
    clock.seconds -= 1e8
    assert memory.note_unheard({"a": "A"}) == {"a": 0}
    clock.seconds += 3600
    assert memory.note_unheard({"a": "A"}) == {"a": 3600}


def _methods(database: Database) -> dict[str, Callable[[], object]]:
    jobs, memory = Jobs(database, "wpp", PAUSES), ChannelRepository(database, "wpp")
    backlog = Backlog(database, "wpp", PAUSES)
    job = Job(
        1, "loja", "loja", RepairCause.SILENT, look_only=False, waited=0, attempt=1, failures=0
    )
    return {
        "accept": lambda: _accept(database, "loja"),
        "claim": jobs.claim,
        "renew": jobs.renew,
        "release": jobs.release,
        "finish": lambda: jobs.finish(job, _result(job, Outcome.FAILED)),
        "look_later": lambda: jobs.look_later(job),
        "nothing_found": lambda: jobs.nothing_found(job),
        "put_back": lambda: jobs.put_back(job),
        "old_news": lambda: jobs.old_news([(job, _result(job, Outcome.RECOVERED))]),
        "paused": backlog.paused,
        "due": backlog.due,
        "begin_restart": lambda: jobs.begin_restart(job, "loja"),
        "queue": memory.queue,
        "prune": memory.prune,
        "outcome": lambda: memory.outcome(1),
        "latest_repair": lambda: memory.latest_repair("loja"),
        "note_unheard": lambda: memory.note_unheard({"loja": "loja"}),
    }


def test_a_state_that_is_gone_is_a_state_error_everywhere(state: Database) -> None:
    with state.write() as connection:
        for name in ("repairs", "channels"):
            connection.execute(sa.text(f"DROP TABLE {name}"))
    for name, method in _methods(state).items():
        with pytest.raises(StateError) as caught:
            method()
        assert str(caught.value).isprintable(), name


def test_a_state_that_can_only_be_read_is_a_state_error(state: Database, url: sa.URL) -> None:
    _accept(state, "waiting")

    def only_read(connection: Any, _record: object, _proxy: object) -> None:
        cursor = connection.cursor()
        sqlite = state.is_sqlite
        cursor.execute("PRAGMA query_only=ON" if sqlite else "SET SESSION TRANSACTION READ ONLY")
        cursor.close()

    sa.event.listen(state._engine, "checkout", only_read)
    methods = _methods(state)
    for name in ("queue", "outcome", "latest_repair", "paused"):
        methods.pop(name)()
    for name in ("prune", "begin_restart"):  # there is nothing that they would write
        methods.pop(name)
    for name in (
        "finish",
        "look_later",
        "nothing_found",
        "old_news",
        "put_back",
        "renew",
        "release",
    ):
        # On SQLite, what changes nothing is allowed.
        if not state.is_sqlite:
            with pytest.raises(StateError):
                methods[name]()
    for name in ("accept", "claim", "note_unheard"):
        with pytest.raises(StateError):
            methods[name]()
    assert ChannelRepository(state, "wpp").queue().waiting == 1


def test_a_failed_payload_leaves_nothing_behind(state: Database) -> None:
    with state.write() as connection:
        connection.execute(sa.text("ALTER TABLE channels RENAME TO away"))
    with pytest.raises(StateError):
        _accept(state, "a", "b")
    with state.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(repairs)) == 0


@pytest.mark.parametrize(
    "text",
    [
        "mysql+pymysql://user:not-a-real-password@127.0.0.1:1/state",
        "mysql+pymysql://user:not-a-real-password@127.0.0.1:1/state?no_such_option=1",
        "mysql+pymysql://user:not-a-real-password@127.0.0.1:1/state?charset=klingon",
        "sqlite:///file/state.sqlite3",
        "sqlite:///file",
        "sqlite:///folder",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_a_state_that_cannot_be_opened_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no database at all, but a text that is long enough " * 50)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StateError) as caught:
        open_state(sa.make_url(text))
    assert str(caught.value).isprintable()
    assert "not-a-real-password" not in str(caught.value)
