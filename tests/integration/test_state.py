"""The hooks' state, on SQLite and on MariaDB: every test runs on both."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from reconnect_hook.alerts import AlertWriter
from reconnect_hook.history import RepairHistory
from reconnect_hook.message_audit import Audit, AuditRepository, AuditResult, AuditWish
from reconnect_hook.models import (
    COLUMNS,
    LEASE_SECONDS,
    LONGEST_DUE_SECONDS,
    AskedBy,
    Backoff,
    ChannelRow,
    GatewayRow,
    Intent,
    Phase,
    RepairCause,
    Step,
)
from reconnect_hook.operator_actions import OperatorActions
from reconnect_hook.probe_limits import ProbeRepository
from reconnect_hook.repository import (
    Lead,
    LostLeadError,
    Raise,
    add_gateways,
    begin_look,
    poll,
    prune_records,
    prune_rows,
    raise_intents,
    read_gateway,
    read_rows,
    store_rows,
)
from reconnect_hook.scan_links import ScanLinks
from reconnect_hook.schema import channel, missed_message, open_state, repair_log, scan_links
from tests.support.states import StateClock, firing, open_rows, sqlite_url
from tests.support.threads import at_once
from tests.support.world import GATEWAY, Options, World
from zapwatch.channels import Channel, Status, channel_key
from zapwatch.db import Database, StateError, UnavailableError, now, now_column
from zapwatch.gateways.base import GatewayErrorKind, QrKind

BACKOFF = Backoff(300)
_TIMEOUT = GatewayErrorKind.TIMEOUT
_MANY = [f"channel {number:02d}" for number in range(8)]


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Callable[..., Database]:
    """Open databases that are closed in the end."""

    def open_(url: sa.URL, **more: Any) -> Database:
        database = open_state(url, **more)
        request.addfinalizer(database.close)
        add_gateways(database, [GATEWAY])
        return database

    return open_


@pytest.fixture
def clock() -> StateClock:
    return StateClock()


@pytest.fixture
def state(url: sa.URL, opened: Callable[..., Database], clock: StateClock) -> Database:
    return opened(url, clock=clock)


@pytest.fixture
def other(url: sa.URL, state: Database, opened: Callable[..., Database]) -> Database:
    """Make the state as another hook sees it."""
    return opened(url, clock=state.clock)


@pytest.fixture
def make(url: sa.URL, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., World]:
    """Make worlds of two hooks on one state, whose calls bring a channel back."""

    def world(options: Options | None = None, *, hooks: int = 2) -> World:
        made = World(tmp_path, options, hooks=hooks, url=url)
        made.gateway.on_call = lambda _call, name: made.put(name)
        request.addfinalizer(made.close)
        return made

    return world


def _accept(database: Database, *channels: str, gateway: str = GATEWAY) -> list[str]:
    writer = AlertWriter(database, gateway, BACKOFF)
    return [str(one) for one in writer.accept([firing(channel) for channel in channels])]


def _open_rows(database: Database, gateway: str = GATEWAY) -> list[ChannelRow]:
    with database.read() as connection:
        return open_rows(connection, gateway)


def _row(database: Database, name: str = "loja") -> ChannelRow:
    with database.read() as connection:
        return read_rows(connection, GATEWAY, [channel_key(name)])[channel_key(name)]


def _gateway(database: Database) -> GatewayRow:
    with database.read() as connection:
        return read_gateway(connection, GATEWAY)


def _drop(world: World, *channels: str) -> None:
    for name in channels:
        world.put(name, Status.DISCONNECTED)
        world.alert(name)


def test_hooks_that_make_the_same_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    for number in range(4):
        url = sqlite_url(tmp_path / str(number))
        for one in at_once(*[lambda u=url: open_state(u)] * 8):
            one.close()


# Raises.


def test_of_alerts_at_once_at_two_hooks_exactly_one_makes_the_repair(
    make: Callable[..., World],
) -> None:
    world = make()
    for name in _MANY:
        world.put(name, Status.DISCONNECTED)
        writers = [hook.writer for hook in world.hooks * 4]
        answers = at_once(*[lambda w=w, n=name: w.accept([firing(n)]) for w in writers])
        assert {str(one) for (one,) in answers} <= {"accepted", "coalesced"}
    assert [row.channel for row in _open_rows(world.hook.database)] == _MANY
    world.run(30)
    assert [name for _, name, _ in world.gateway.calls] == _MANY
    assert [world.outcomes(name) for name in _MANY] == [["reconnected"]] * 8


def test_payloads_with_the_same_channels_in_any_order_do_not_wait_for_each_other(
    state: Database, other: Database
) -> None:
    names = [f"channel {number}" for number in range(20)]
    work = [lambda d=d, n=n: _accept(d, *n) for d, n in [(state, names), (other, names[::-1])] * 3]
    counted = [one for some in at_once(*work) for one in some]
    assert set(counted) <= {"accepted", "coalesced"}
    assert counted.count("accepted") >= 20
    assert len(_open_rows(state)) == 20


_AT = 1_700_000_000.0
_RAISES = [
    Raise("", "loja", Intent.PROBE, RepairCause.SUSPECT, _AT, _AT + 9, 5),
    Raise("", "Loja", Intent.RECHECK, RepairCause.SILENT, _AT + 1, _AT + 8, 7),
    Raise("", "LOJA", Intent.REPAIR, RepairCause.SILENT, _AT + 2, _AT + 30, 6),
    Raise("", "loja", Intent.REPAIR, RepairCause.DISCONNECTED, _AT + 3, _AT + 40, 6),
    Raise("", "loja", Intent.FORCE, RepairCause.MANUAL, _AT + 4, _AT + 50, 4, AskedBy.PAGE),
]


_BEFORE: list[dict[str, Any] | None] = [
    None,
    {"intent": Intent.REPAIR, "cause": RepairCause.SILENT, "next_at": _AT + 20, "since": _AT},
    {"phase": Phase.VERIFYING, "intent": Intent.REPAIR, "cause": RepairCause.NEVER_HEARD},
    {"phase": Phase.PROBING, "intent": Intent.PROBE, "cause": RepairCause.ASKED},
    {"listed": True, "attempts": 4, "raised_in": 9},
]


@pytest.mark.parametrize("first", range(len(_BEFORE)))
def test_raises_in_any_order_want_the_same(state: Database, first: int) -> None:
    """The database's statement does what Raise.apply_to() does, and takes nothing back.

    Each row before has a fifth of the orders.
    """
    before = _BEFORE[first]
    expected: dict[str, ChannelRow] = {}
    orders = itertools.islice(itertools.permutations(_RAISES), first, None, len(_BEFORE))
    with state.write() as connection:
        for number, order in enumerate(orders):
            key = f"loja{number}"
            row = ChannelRow(key, "Loja", **(before or {}))
            if before is not None:
                values = {name: getattr(row, name) for name in COLUMNS}
                connection.execute(sa.insert(channel).values(gateway=GATEWAY, **values))
            for one in order:
                raised = replace(one, key=key)
                raise_intents(connection, GATEWAY, [raised])
                raised.apply_to(row)
            expected[key] = row
    with state.read() as connection:
        stored = read_rows(connection, GATEWAY, expected)
    spelled = before is not None and before.get("listed")
    for key, row in stored.items():
        assert spelled is not True or row.channel == "Loja", "the gateway's own spelling stays"
        assert replace(row, channel="") == replace(expected[key], channel="")
    assert {row.intent for row in stored.values()} == {Intent.FORCE}
    assert len({row.next_at for row in stored.values()}) == 1
    assert len({row.raised_in for row in stored.values()}) == 1


def test_of_a_row_only_what_has_changed_is_stored(state: Database) -> None:
    """A finding about another channel may have suspended this one in the same transaction."""
    _accept(state, "loja", "obra")
    with state.write() as connection:
        loja, obra = open_rows(connection, GATEWAY, lock=True)
        connection.execute(sa.update(channel).values(suspended=True, channel="LOJA"))
        loja.attempts = obra.attempts = 3
        store_rows(connection, GATEWAY, [loja, obra])
    for row in _open_rows(state):
        assert (row.attempts, row.suspended, row.channel) == (3, True, "LOJA")


def test_what_is_raised_while_it_is_being_closed_stays(state: Database, other: Database) -> None:
    """Whichever comes first: the end keeps the raise, or the raise opens the row again."""
    _accept(state, *_MANY)
    lead = Lead(state, GATEWAY)
    lead.take(_gateway(state))
    for number in range(5):
        lead.write(partial(begin_look, name=GATEWAY, silences=False), begins_look=True)

        def end(connection: sa.Connection, seen: GatewayRow, _at: float) -> list[str]:
            rows = open_rows(connection, GATEWAY, lock=True)
            closed = [row for row in rows if row.raised_in < seen.look]
            for row in closed:
                row.intent, row.next_at = Intent.NONE, None
            store_rows(connection, GATEWAY, closed)
            return [row.key for row in closed]

        at_once(lambda: lead.write(end), lambda: _accept(other, *_MANY))
        found = {row.channel: row.raised_in for row in _open_rows(state)}
        assert found == dict.fromkeys(_MANY, number + 1)


@pytest.mark.parametrize("work", ["pause", "audit", "list"])
def test_what_another_hook_adds_meanwhile_is_no_fault(
    database: sa.URL, opened: Callable[..., Database], work: str
) -> None:
    """Not on SQLite, which has one writer at a time."""

    def add(by: Database) -> None:
        if work == "pause":
            writer = AlertWriter(by, GATEWAY, BACKOFF)
            OperatorActions(by, GATEWAY, writer, lambda: None).pause("loja", None)
        elif work == "list":
            RepairHistory(by, GATEWAY, BACKOFF).note_listed({"loja": "loja"}, lambda _key: False)
        else:
            channel = Channel("loja", Status.CONNECTED)
            AuditRepository(by, GATEWAY).record(channel, Audit(AuditResult.COMPLETE))

    mine, other = opened(database), opened(database)
    waiting = [other]

    def meanwhile(_connection: sa.Connection, statement: object, *_: object) -> None:
        if waiting and isinstance(statement, sa.Insert):
            add(waiting.pop())

    sa.event.listen(mine._engine, "before_execute", meanwhile)
    add(mine)
    assert waiting == []


def test_an_audit_that_is_wanted_while_one_is_recorded_stays(
    database: sa.URL, opened: Callable[..., Database]
) -> None:
    mine, other = opened(database), opened(database)
    audits, wish = AuditRepository(mine, GATEWAY), AuditWish("loja", 0.0)
    audits.want([wish], (0.0, 0.0))
    (due,) = audits.claim()
    wanting = threading.Thread(target=AuditRepository(other, GATEWAY).want, args=([wish],))

    def meanwhile(_connection: sa.Connection, statement: object, *_: object) -> None:
        if isinstance(statement, sa.Update) and wanting.ident is None:
            wanting.start()
            wanting.join(1.0)  # it ends, or waits for the end of this transaction

    sa.event.listen(mine._engine, "before_execute", meanwhile)
    audits.record(Channel("loja", Status.CONNECTED), Audit(AuditResult.COMPLETE), due)
    wanting.join()
    assert audits.last("loja")["loja"].due_at is not None


def test_a_row_that_is_raised_while_it_is_pruned_stays(
    database: sa.URL, opened: Callable[..., Database]
) -> None:
    mine, other = opened(database), opened(database)
    actions = OperatorActions(mine, GATEWAY, AlertWriter(mine, GATEWAY, BACKOFF), lambda: None)
    actions.pause("loja", None)
    actions.resume("loja")

    def meanwhile(_connection: sa.Connection, statement: object, *_: object) -> None:
        if isinstance(statement, sa.Delete):
            assert _accept(other, "loja") == ["accepted"]

    sa.event.listen(mine._engine, "before_execute", meanwhile)
    prune_rows(mine, GATEWAY, set())
    assert [row.channel for row in _open_rows(mine)] == ["loja"]


def test_gateways_do_not_see_each_other(state: Database) -> None:
    assert _accept(state, "loja") == ["accepted"]
    assert _open_rows(state, "second") == []
    assert _accept(state, "loja", gateway="second") == ["accepted"]
    assert poll(state).keys() == {GATEWAY}


def test_the_databases_clock_has_fractions_and_the_age_of_the_world(
    url: sa.URL, opened: Callable[..., Database]
) -> None:
    with opened(url).read() as connection:
        first = now(connection)
        assert 1_700_000_000 < first <= now(connection) < first + 600


def test_the_hour_that_daylight_saving_repeats_does_not_put_the_databases_clock_back(
    database: sa.URL, opened: Callable[..., Database]
) -> None:
    repeated = 1_730_615_400.25
    with opened(database).read() as connection:
        zone = f"SET time_zone = 'America/New_York', timestamp = {repeated}"
        connection.exec_driver_sql(zone)
        assert now(connection) == repeated
        assert connection.scalar(sa.select(now_column(connection))) == repeated


# The lead.


def test_claims_at_once_never_get_the_same_repair(
    state: Database, other: Database, make: Callable[..., World]
) -> None:
    def take(lead: Lead) -> bool:
        lead.take(seen)
        with suppress(LostLeadError):
            lead.renew()
            return True
        return False

    for _ in range(5):
        seen = _gateway(state)
        leads = [Lead(database, GATEWAY) for database in (state, other) * 4]
        assert at_once(*[partial(take, one) for one in leads]).count(True) == 1
        assert _gateway(state).epoch == seen.epoch + 1
    world = make(Options(workers=1))
    world.run(LEASE_SECONDS + 1)
    _drop(world, *_MANY)
    world.run(30)
    assert sorted(name for _, name, _ in world.gateway.calls) == _MANY


def test_a_lease_that_is_not_renewed_is_taken_over(make: Callable[..., World]) -> None:
    """One call more at most where it dies in a call, and none where that was answered."""
    world = make()
    world.gateway.on_call = lambda _call, _name: None
    _drop(world, "loja")
    world.run(5, until=lambda: bool(world.gateway.calls))
    world.run(1)
    world.hooks[0].stalled_until = world.hooks[1].stalled_until = 0.0
    before = _gateway(world.hook.database)
    leader = next(hook for hook in world.hooks if hook.reconciler.leads)
    follower = next(hook for hook in world.hooks if hook is not leader)
    leader.stalled_until = world.clock.monotonic() + LEASE_SECONDS + 20
    world.run(LEASE_SECONDS - 2)
    assert _gateway(follower.database).epoch == before.epoch
    world.run(5)
    assert _gateway(follower.database).epoch == before.epoch + 1
    assert follower.reconciler.leads
    world.put("loja")
    world.run(40)
    assert not leader.reconciler.leads
    assert world.outcomes("loja") == ["reconnected"]
    assert len(world.gateway.calls) == 1


def test_what_was_listed_before_the_hook_stood_still_is_listed_again(
    make: Callable[..., World],
) -> None:
    world = make(Options(list_takes=0.5), hooks=1)
    _drop(world, "loja")
    world.run(5, until=lambda: world.gateway.lists == 1)
    world.put("loja")
    world.skip(3600)
    world.run(20)
    assert world.outcomes("loja") == ["recovered"]
    assert world.gateway.calls == []


def test_who_dies_in_a_call_is_followed_with_one_call_more(make: Callable[..., World]) -> None:
    world = make(Options(call_takes=8.0))
    _drop(world, "loja")
    world.run(5, until=lambda: _row(world.hook.database).phase is Phase.CALLING)
    index = next(n for n, hook in enumerate(world.hooks) if hook.reconciler.leads)
    world.gateway.on_call = lambda _call, _name: None
    world.restart(index)
    world.run(LEASE_SECONDS + 5)
    world.gateway.on_call = lambda _call, name: world.put(name)
    world.run(30)
    assert world.outcomes("loja") == ["reconnected"]
    assert len(world.gateway.calls) == 2


def test_what_a_hook_leaves_when_it_stops_is_done_by_the_other_at_once(
    make: Callable[..., World],
) -> None:
    world = make(Options(call_takes=60.0))
    _drop(world, "loja")
    world.run(5, until=lambda: _row(world.hook.database).phase is Phase.CALLING)
    world.run(4)  # a look during the call puts the row off by a lease
    leader = next(hook for hook in world.hooks if hook.reconciler.leads)
    leader.reconciler.stop()
    leader.reconciler.give_back()
    leader.stalled_until = math.inf
    world.run(LEASE_SECONDS / 2, until=lambda: world.in_flight > 1)
    assert world.in_flight == 2


def test_a_lease_that_is_renewed_is_kept(make: Callable[..., World]) -> None:
    world = make(Options(call_takes=3.5 * LEASE_SECONDS, list_takes=2.5 * LEASE_SECONDS))
    _drop(world, "loja")
    world.run(15 * LEASE_SECONDS, until=lambda: bool(world.ended("loja")))
    assert world.outcomes("loja") == ["reconnected"]
    assert len(world.gateway.calls) == 1
    assert _gateway(world.hook.database).epoch == 1


def test_no_write_of_a_lead_that_is_over_commits(
    state: Database, other: Database, clock: StateClock
) -> None:
    _accept(state, "loja")
    first, second = Lead(state, GATEWAY), Lead(other, GATEWAY)
    first.take(_gateway(state))
    first.renew()
    expired = _gateway(state)
    clock.seconds += LEASE_SECONDS + 1 / 3
    first.renew()
    for seen in (GatewayRow(), replace(_gateway(state), holder="another"), expired):
        second.take(seen)
        with pytest.raises(LostLeadError):
            second.renew()
    second.take(_gateway(state))
    second.renew()
    row = _row(state)
    row.intent = Intent.NONE
    with pytest.raises(LostLeadError):
        first.write(lambda connection, _seen, _at: store_rows(connection, GATEWAY, [row]))
    first.give_back()
    assert _row(state).intent is Intent.REPAIR
    second.write(lambda connection, _seen, _at: store_rows(connection, GATEWAY, [row]))
    assert _row(state).intent is Intent.NONE


@pytest.mark.parametrize("jump", [-1e8, 1e8], ids=["back", "forth"])
def test_a_lease_ends_although_the_clock_jumps(make: Callable[..., World], jump: float) -> None:
    world = make()
    world.gateway.on_call = lambda _call, _name: None
    _drop(world, "loja")
    world.run(5, until=lambda: bool(world.gateway.calls))
    world.run(1)
    index = next(n for n, hook in enumerate(world.hooks) if hook.reconciler.leads)
    world.hooks[index].die()
    world.clock.jumped += jump
    world.put("loja")
    world.run(LEASE_SECONDS + 5)
    assert world.hooks[1 - index].history.of_channel("loja")[0].outcome == "reconnected"


@pytest.mark.parametrize("jump", [-1e8, 1e8], ids=["back", "forth"])
def test_a_queued_repair_does_not_wait_for_a_clock_that_was_put_back(
    make: Callable[..., World], jump: float
) -> None:
    world = make()
    _drop(world, "loja")
    world.clock.jumped += jump
    world.run(10)
    assert world.outcomes("loja") == ["reconnected"]
    _drop(world, "loja")
    world.run(10)
    world.clock.jumped += jump
    world.run(15)
    world.skip(310)
    world.run(20)
    assert world.outcomes("loja") == ["reconnected"] * 2, "nor does one in a delay"


def test_a_repair_does_not_wait_for_a_clock_that_was_put_back(make: Callable[..., World]) -> None:
    world = make()
    world.gateway.on_call = lambda _call, _name: None
    _drop(world, "loja")
    world.run(5)
    world.put("loja")
    world.clock.jumped -= 3500
    world.run(2 * LONGEST_DUE_SECONDS)
    assert world.outcomes("loja") == ["reconnected"]


def _sever(world: World, step: Step | None) -> list[Phase]:
    """Lose the answer to the first commit of each phase of a step, and return these phases."""
    database = world.hook.database
    write = database.write
    lost: list[Phase] = []

    @contextmanager
    def severed() -> Iterator[sa.Connection]:
        with write() as connection:
            yield connection
        with database.read() as connection:
            row = read_rows(connection, GATEWAY, ["loja"]).get("loja")
        if row is not None and row.step is step and row.phase not in lost:
            lost.append(row.phase)
            raise UnavailableError("lost the connection")

    database.write = severed  # type: ignore[method-assign]
    return lost


def test_a_lead_that_was_taken_without_knowing_it_is_kept(make: Callable[..., World]) -> None:
    world = make(hooks=1)
    _drop(world, "loja")
    lost = _sever(world, None)
    world.run(LEASE_SECONDS / 2)
    assert lost == [Phase.IDLE]
    assert world.outcomes("loja") == ["reconnected"]


def test_what_was_claimed_without_knowing_it_is_claimed_again(make: Callable[..., World]) -> None:
    """The connection is lost after the commit and before the answer to it."""
    world = make(hooks=1)
    lost = _sever(world, Step.RECONNECT)
    _drop(world, "loja")
    world.run(60)
    assert lost == [Phase.CALLING, Phase.VERIFYING]
    assert world.outcomes("loja") == ["reconnected"]
    assert len(world.gateway.calls) == 1


def test_an_answer_that_was_recorded_without_knowing_it_is_not_the_next_calls(
    make: Callable[..., World],
) -> None:
    world = make(hooks=1)
    lost = _sever(world, Step.START)
    world.gateway.answer = QrKind.NOT_STARTED

    def start(call: str, name: str) -> None:
        if call == "start_session":
            world.put(name)
            world.gateway.answer = QrKind.ACCEPTED

    world.gateway.on_call = start
    _drop(world, "loja")
    world.run(60)
    assert lost[0] is Phase.CALLING
    assert world.outcomes("loja") == ["reconnected"]
    assert world.gateway.calls_of("loja") == ["reconnect", "reconnect", "start_session"]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_deletion_for_which_there_was_no_thread_is_not_made_good(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(Options(allow_restart=True, cooldown=10.0, verify=5.0), hooks=1)
    world.gateway.on_call = lambda _call, _name: None
    start, refused = world.hook.workers._start, []

    def start_unless_it_deletes(work: Any) -> None:
        if getattr(work.args[-1], "step", None) is Step.DELETE:
            refused.append(work)
            raise RuntimeError
        start(work)

    monkeypatch.setattr(world.hook.workers, "_start", start_unless_it_deletes)
    _drop(world, "loja")
    world.run(300, until=lambda: bool(refused))
    del world.gateway.statuses["loja"]
    world.run(60)
    assert world.outcomes("loja")[-1] == "unknown_channel"
    assert set(world.gateway.calls_of("loja")) == {"reconnect"}


# What stays, and what does not.


def test_what_only_an_alert_names_is_not_remembered(make: Callable[..., World]) -> None:
    world = make(hooks=1)
    _drop(world, "loja")
    world.alert("stranger")
    world.run(20)
    assert world.outcomes("stranger") == ["unknown_channel"]
    assert world.row("stranger") is None
    assert world.gateway.calls_of("stranger") == []
    assert world.hook.history.present().remembered.keys() == {"loja"}


def test_any_channel_can_be_stored(make: Callable[..., World]) -> None:
    names = ["ação 🏠", "a'b\"c\\d", "%s {} ; DROP TABLE channel", "../x", "{{ .x }}"]
    names += ["x" * 255, "ß" * 127]
    world = make(hooks=1)
    _drop(world, *names)
    world.run(30)
    assert sorted(called for _, called, _ in world.gateway.calls) == sorted(names)
    assert [world.outcomes(name) for name in names] == [["reconnected"]] * len(names)


def test_channels_that_only_look_alike_are_two(state: Database) -> None:
    channels = ["acao", "ação", "açao", "a", "á"]
    assert _accept(state, *channels) == ["accepted"] * 5
    assert _accept(state, "a\u0301") == ["coalesced"], "only another form of the last"
    assert len(_open_rows(state)) == 5


def _log_row(at: float, **more: Any) -> dict[str, Any]:
    usual = {"key": "a", "channel": "A", "cause": "silent", "accepted_at": 1.0, "attempt": 1}
    ended = {"action": "none", "outcome": "recovered", "detail": "", "finished_at": at}
    return {"gateway": GATEWAY, **usual, **ended, **more}


def test_history_goes_after_90_days_and_work_stays(state: Database, clock: StateClock) -> None:
    _accept(state, "stuck", "gone", "held")
    OperatorActions(state, GATEWAY, AlertWriter(state, GATEWAY, BACKOFF), lambda: None).pause(
        "paused", None
    )
    day = 86400.0
    rows = [
        _log_row(clock.seconds - 91 * day),
        _log_row(clock.seconds - 89 * day),
        _log_row(clock.seconds - 2 * day, outcome="unknown_channel"),
        _log_row(clock.seconds - day / 2, outcome="unknown_channel"),
    ]
    with state.write() as connection:
        connection.execute(sa.insert(repair_log), rows)
        connection.execute(
            sa.update(channel).where(channel.c.key.in_(["gone", "held"])).values(next_at=None)
        )
    history = RepairHistory(state, GATEWAY, BACKOFF)
    prune_records(state)
    with state.read() as connection:
        assert len(connection.scalars(sa.select(channel.c.key)).all()) == 4
    kept = [round((clock.seconds - one.finished_at) / day, 1) for one in history.of_channel("a")]
    assert sorted(kept) == [0.5, 89.0]
    assert prune_rows(state, GATEWAY, {"held"}) == ["gone"]
    with state.read() as connection:
        keys = connection.scalars(sa.select(channel.c.key)).all()
    assert sorted(keys) == ["held", "paused", "stuck"]


def test_a_wrong_clock_at_the_machines_start_deletes_nothing(make: Callable[..., World]) -> None:
    world = make()
    _drop(world, "loja")
    world.run(10)
    links = ScanLinks(world.hook.database)
    links.create(GATEWAY, "loja", "Ana", 24)
    world.clock.jumped += world.clock.seconds - 60 + 730 * 86_400
    world.clock.seconds = 60
    for index in range(len(world.hooks)):
        world.restart(index)
    world.run(120)
    world.clock.jumped -= 730 * 86_400
    assert world.outcomes("loja") == ["reconnected"]
    assert len(links.valid()) == 1
    world.skip(24 * 3600)
    world.run(5)
    with world.hook.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(scan_links)) == 0


def test_a_long_history_goes_in_chunks(state: Database, clock: StateClock) -> None:
    old = clock.seconds - 91 * 86400
    with state.write() as connection:
        connection.execute(
            sa.insert(repair_log),
            [*(_log_row(old + number / 1000) for number in range(2500)), _log_row(clock.seconds)],
        )
        missed = {"gateway": "removed", "key": "a", "at": old, "kind": "text", "chat": ""}
        connection.execute(
            sa.insert(missed_message),
            [missed | {"id": str(number), "found_at": old} for number in range(1500)],
        )
    assert [prune_records(state) for _ in range(4)] == [True, True, True, False]
    with state.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(missed_message)) == 0
    left = RepairHistory(state, GATEWAY, BACKOFF).of_channel("a")
    assert [one.finished_at for one in left] == [pytest.approx(clock.seconds)]


def test_old_repairs_cost_neither_a_read_of_new_ones_nor_a_pruning_in_sqlite(
    tmp_path: Path, opened: Callable[..., Database], clock: StateClock
) -> None:
    database = opened(sqlite_url(tmp_path), clock=clock)
    history = RepairHistory(database, GATEWAY, BACKOFF)
    book = ProbeRepository(database, GATEWAY, Options().probe)
    minute_ago, month_ago = clock.seconds - 60, clock.seconds - 30 * 86400
    with database.write() as connection:
        old = [_log_row(month_ago - number) for number in range(5000)]
        connection.execute(sa.insert(repair_log), [*old, _log_row(clock.seconds)])
    newest = history.newest_id()
    thousands = 0  # of instructions of SQLite's virtual machine

    def count() -> int:
        nonlocal thousands
        thousands += 1
        return 0

    with database.read() as connection:
        # The pool hands the same connection to each call.
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(count, 1000)
    calls: dict[str, tuple[Callable[[], object], object]] = {
        "ended_since": (lambda: len(history.ended_since(minute_ago)), 1),
        "ended_after": (lambda: len(history.ended_after(newest - 1)), 1),
        "repaired": (lambda: book.repaired(60), {"a"}),
        "prune_records": (lambda: prune_records(database), False),
    }
    for name, (call, result) in calls.items():
        thousands = 0
        assert call() == result, name
        assert thousands < 5, name


def test_it_is_noted_since_when_no_message_is_known(state: Database, clock: StateClock) -> None:
    history = RepairHistory(state, GATEWAY, BACKOFF)
    both = {"a": "A", "b": "B"}
    assert history.note_unheard(both) == {"a": 0, "b": 0}
    clock.seconds += 100
    assert history.note_unheard(both) == {"a": 100, "b": 100}
    assert history.note_unheard({"a": "A"}) == {"a": 100}
    clock.seconds += 100
    assert history.note_unheard(both) == {"a": 200, "b": 0}, "b was heard meanwhile"
    clock.seconds -= 1e8
    assert history.note_unheard({"a": "A"}) == {"a": 0}, "the clock was put back"
    clock.seconds += 3600
    assert history.note_unheard({"a": "A"}) == {"a": 3600}


def test_a_channel_that_has_left_the_list_is_told_after_five_minutes(
    state: Database, clock: StateClock
) -> None:
    history, other = (RepairHistory(state, name, BACKOFF) for name in (GATEWAY, "second"))

    def none(_key: str) -> bool:
        return False

    assert history.note_listed({"a": "A", "b": "B", "c": "C"}, none) == []
    assert other.note_listed({"b": "B"}, none) == [], "each gateway has its own"
    assert history.note_listed({"a": "A"}, lambda key: key == "c") == []
    clock.seconds -= 1e8
    assert history.note_listed({"a": "A"}, none) == [], "noted again"
    clock.seconds += 299
    assert history.note_listed({"a": "A"}, none) == []
    clock.seconds += 1
    assert history.note_listed({"a": "A"}, none) == ["B"]
    assert history.note_listed({"a": "A"}, none) == []


def test_sessions_whose_names_differ_in_case_are_repaired_paused_and_linked_each(
    make: Callable[..., World],
) -> None:
    world = make(hooks=1)
    names = ("Loja", "loja", "Sao", "S\u00e3o", "s\u00e3o")
    for name in names:
        world.put(name, Status.DISCONNECTED)
    world.hook.actions.pause("s\u00e3o", None)
    assert {world.alert(name) for name in names} == {"accepted"}
    world.run(30)
    assert sorted(name for _, name, _ in world.gateway.calls) == ["Loja", "Sao", "S\u00e3o", "loja"]
    assert [world.outcomes(name) for name in names] == [["reconnected"]] * 4 + [[]]
    assert world.hook.history.present().paused.keys() == {"s\u00e3o"}
    links = ScanLinks(world.hook.database)
    link, _ = links.create(GATEWAY, "Loja", "", 1)
    assert [links.of_channel(GATEWAY, name) for name in ("Loja", "loja")] == [[link], []]
    assert world.repair("LOJA").outcome == "unknown_channel", "it may be either"


# A state that fails.


def _reads(database: Database) -> dict[str, Callable[[], object]]:
    history = RepairHistory(database, GATEWAY, BACKOFF)
    return {
        "poll": lambda: poll(database),
        "present": history.present,
        "unsettled": history.unsettled,
        "state_of": lambda: history.state_of(["loja"]),
        "ended_after": lambda: history.ended_after(0),
        "ended_since": lambda: history.ended_since(0.0),
        "last_of_each": history.last_of_each,
        "newest_id": history.newest_id,
    }


def _writes(database: Database) -> dict[str, Callable[[], object]]:
    writer = AlertWriter(database, GATEWAY, BACKOFF)
    actions = OperatorActions(database, GATEWAY, writer, lambda: None)
    lead = Lead(database, GATEWAY)
    lead.take(GatewayRow())
    return {
        "accept": lambda: _accept(database, "loja"),
        "reconnect": lambda: actions.reconnect("loja"),
        "probe_now": lambda: actions.probe_now("loja"),
        "pause": lambda: actions.pause("loja", None),
        "resume": lambda: actions.resume("loja"),
        "renew": lead.renew,
        "give_back": lead.give_back,
        "add_gateways": lambda: add_gateways(database, ["third"]),
        "note_unheard": lambda: RepairHistory(database, GATEWAY, BACKOFF).note_unheard({"b": "B"}),
    }


def test_a_state_that_is_gone_is_a_state_error_everywhere(state: Database) -> None:
    with state.write() as connection:
        for name in ("channel", "gateway", "repair_log"):
            connection.execute(sa.text(f"DROP TABLE {name}"))
    prunes: dict[str, Callable[[], object]] = {
        "prune records": partial(prune_records, state),
        "prune rows": partial(prune_rows, state, GATEWAY, set()),
    }
    methods = _reads(state) | _writes(state) | prunes
    for name, method in methods.items():
        with pytest.raises(StateError) as caught:
            method()
        assert str(caught.value).isprintable(), name


def test_a_state_that_can_only_be_read_is_a_state_error(state: Database) -> None:
    _accept(state, "waiting")

    def only_read(connection: Any, _record: object, _proxy: object) -> None:
        cursor = connection.cursor()
        sqlite = state.is_sqlite
        cursor.execute("PRAGMA query_only=ON" if sqlite else "SET SESSION TRANSACTION READ ONLY")
        cursor.close()

    sa.event.listen(state._engine, "checkout", only_read)
    for read in _reads(state).values():
        read()
    for write in _writes(state).values():
        with pytest.raises(StateError):
            write()
    assert [row.channel for row in _open_rows(state)] == ["waiting"]


def test_a_failed_payload_leaves_nothing_behind(state: Database) -> None:
    """One of its alerts cannot be stored."""
    body = "SELECT RAISE(ABORT, 'no')" if state.is_sqlite else "SIGNAL SQLSTATE '45000'"
    with state.write() as connection:
        if state.is_sqlite:
            trigger = f"WHEN new.key = 'b' BEGIN {body}; END"
        else:
            trigger = f"FOR EACH ROW IF new.key = 'b' THEN {body}; END IF"
        connection.execute(sa.text(f"CREATE TRIGGER no BEFORE INSERT ON channel {trigger}"))
    with pytest.raises(StateError):
        _accept(state, "a", "b")
    assert _open_rows(state) == []
