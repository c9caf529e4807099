"""What becomes of alerts before they are answered: the table of admit(), and whole payloads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from reconnect_hook.alerts import Alert, AlertStatus, Target, admit
from reconnect_hook.models import (
    COLUMNS,
    Backoff,
    ChannelRow,
    GatewayRow,
    Intent,
    Outcome,
    Phase,
    RepairCause,
)
from tests.support.states import firing, locked, resolved, sqlite_url
from tests.support.world import World
from zapwatch.channels import Status
from zapwatch.db import StateError
from zapwatch.gateways.base import QrKind

NOW = 1_700_000_000.0
LOOK = 7
GATEWAY_ROW = GatewayRow(look=LOOK)
BACKOFF = Backoff(300)
_DOWN, _SILENT, _HEARD = RepairCause.DISCONNECTED, RepairCause.SILENT, RepairCause.NEVER_HEARD
_PROBE, _RECHECK, _REPAIR = Intent.PROBE, Intent.RECHECK, Intent.REPAIR
_FIRING, _OVER = AlertStatus.FIRING, AlertStatus.RESOLVED


def row(**columns: Any) -> ChannelRow:
    """Return the row of a listed channel of which nothing is wanted."""
    return ChannelRow("loja", "Loja", **{"listed": True, **columns})


def waiting(**columns: Any) -> ChannelRow:
    """Return one whose repair waits for a worker, and whose gateway is being looked at."""
    usual = {"intent": _REPAIR, "next_at": NOW - 1, "raised_in": LOOK, "since": NOW - 2}
    return row(**{**usual, **columns})


_FAILED = {"attempts": 1, "failures": 1, "called_at": NOW - 100, "last_cause": _DOWN}
_OFTEN = {**_FAILED, "attempts": 3, "last_cause": _SILENT}
_OFTEN_PAST = {**_OFTEN, "called_at": NOW - 301}
_EARLIER = {"raised_in": LOOK - 1}


@pytest.mark.parametrize(
    ("before", "status", "cause", "counted", "raised"),
    [
        # A repair, of which nothing is wanted yet.
        (None, _FIRING, _DOWN, "accepted", (_REPAIR, 0)),
        (row(), _FIRING, _SILENT, "accepted", (_REPAIR, 0)),
        (row(called_at=NOW - 301), _FIRING, _DOWN, "accepted", (_REPAIR, 0)),
        (row(called_at=NOW - 299), _FIRING, _DOWN, "cooldown", (_REPAIR, 1)),
        (row(called_at=NOW - 100), _FIRING, _DOWN, "cooldown", (_REPAIR, 30)),
        (row(**{**_FAILED, "attempts": 2}), _FIRING, _DOWN, "cooldown", (_REPAIR, 30)),
        # News that are older than the look that found it well.
        (row(seen_at=NOW - 4), _FIRING, _DOWN, "cooldown", (_REPAIR, 6)),
        (row(seen_at=NOW - 4, called_at=NOW - 100), _FIRING, _DOWN, "cooldown", (_REPAIR, 30)),
        (row(seen_at=NOW - 10), _FIRING, _DOWN, "accepted", (_REPAIR, 0)),
        (row(seen_at=NOW - 4), _FIRING, _SILENT, "accepted", (_REPAIR, 0)),
        (row(seen_at=NOW - 4), _FIRING, RepairCause.MANUAL, "accepted", (_REPAIR, 0)),
        (row(seen_at=NOW - 4, qr_required=True), _FIRING, _DOWN, "accepted", (_REPAIR, 0)),
        # It was silent, and has dropped: the cooldown, and no longer delay.
        (row(**_OFTEN, seen_at=None), _FIRING, _DOWN, "cooldown", (_REPAIR, 30)),
        (row(**_OFTEN_PAST), _FIRING, _DOWN, "accepted", (_REPAIR, 0)),
        (row(**_OFTEN_PAST), _FIRING, _HEARD, "cooldown", (_REPAIR, 30)),
        # Less is wanted of it: as if nothing were.
        (waiting(intent=_RECHECK), _FIRING, _DOWN, "accepted", (_REPAIR, 0)),
        (waiting(intent=_RECHECK, **_FAILED), _FIRING, _DOWN, "cooldown", (_REPAIR, 30)),
        (waiting(intent=_PROBE), _FIRING, _DOWN, "accepted", (_REPAIR, 0)),
        (waiting(intent=_PROBE, phase=Phase.PROBING), _FIRING, _DOWN, "accepted", (_REPAIR, 0)),
        # A repair waits or is under way: whichever look closes the row begins after the alert.
        (waiting(), _FIRING, _DOWN, "coalesced", None),
        (waiting(), _FIRING, _SILENT, "coalesced", None),
        (waiting(**_EARLIER), _FIRING, _DOWN, "coalesced", (_REPAIR, -1)),
        (waiting(phase=Phase.VERIFYING, **_FAILED), _FIRING, _DOWN, "coalesced", None),
        (waiting(phase=Phase.CALLING, **_EARLIER), _FIRING, _DOWN, "coalesced", (_REPAIR, -1)),
        (waiting(next_at=NOW + 20, **_FAILED), _FIRING, _DOWN, "cooldown", None),
        (
            waiting(next_at=NOW + 20, **_EARLIER, **_FAILED),
            _FIRING,
            _DOWN,
            "cooldown",
            (_REPAIR, 20),
        ),
        (waiting(cause=_SILENT, **_OFTEN), _FIRING, _DOWN, "cooldown", (_REPAIR, 30)),
        (waiting(cause=_SILENT, **_OFTEN_PAST), _FIRING, _DOWN, "coalesced", (_REPAIR, 0)),
        (waiting(**{**_OFTEN, "last_cause": _DOWN}), _FIRING, _SILENT, "cooldown", None),
        # A suspicion.
        (None, _FIRING, RepairCause.SUSPECT, "accepted", (_PROBE, 0)),
        (row(**_FAILED), _FIRING, RepairCause.SUSPECT, "accepted", (_PROBE, 0)),
        (waiting(intent=_PROBE), _FIRING, RepairCause.SUSPECT, "coalesced", None),
        (waiting(raised_in=0), _FIRING, RepairCause.SUSPECT, "coalesced", None),
        # An alert that is over.
        (None, _OVER, _DOWN, "ignored", None),
        (row(listed=False, **_FAILED), _OVER, _DOWN, "ignored", None),
        (row(**_FAILED), _OVER, RepairCause.SUSPECT, "ignored", None),
        (row(), _OVER, _DOWN, "accepted", None),
        (row(**_FAILED), _OVER, _SILENT, "accepted", (_RECHECK, 0)),
        (row(qr_required=True), _OVER, _DOWN, "accepted", (_RECHECK, 0)),
        (waiting(intent=_PROBE, **_FAILED), _OVER, _DOWN, "accepted", (_RECHECK, 0)),
        (waiting(intent=_PROBE), _OVER, _DOWN, "accepted", None),
        (waiting(), _OVER, _DOWN, "accepted", None),
        (waiting(next_at=NOW + 20, **_FAILED), _OVER, _DOWN, "accepted", (_RECHECK, 0)),
        (waiting(next_at=NOW + 20, phase=Phase.VERIFYING), _OVER, _DOWN, "accepted", None),
        (row(), AlertStatus.INVALID, _DOWN, "accepted", None),
    ],
)
def test_what_becomes_of_one_alert(
    before: ChannelRow | None,
    status: AlertStatus,
    cause: RepairCause,
    counted: str,
    raised: tuple[Intent, float] | None,
) -> None:
    found, wanted = admit(before, GATEWAY_ROW, status, Target("loja", cause), NOW, BACKOFF)
    assert found == counted
    assert (wanted and (wanted.intent, wanted.next_at - NOW)) == raised
    if wanted is not None:
        assert (wanted.key, wanted.cause, wanted.since) == ("loja", cause, NOW)
        assert wanted.raised_in == LOOK
        after = replace(before) if before else ChannelRow("loja", "loja")
        wanted.apply_to(after)
        # Nothing that was wanted is taken back.
        assert after.intent >= (before.intent if before else 0)
        assert after.next_at is not None
        assert after.next_at <= wanted.next_at
        again, more = admit(after, GATEWAY_ROW, status, Target("loja", cause), NOW, BACKOFF)
        assert more is None or cause is _DOWN, "the same alert wants nothing more"
        assert again in {"coalesced", "cooldown", "accepted"}


def _loaded(stored: ChannelRow, now: float) -> ChannelRow:
    values = [getattr(stored, name) for name in COLUMNS]
    return ChannelRow.load(values, now)


@pytest.mark.parametrize(
    ("moment", "now"),
    [("called_at", NOW - 1), ("called_at", NOW - 1e9), ("seen_at", NOW - 1), ("since", NOW - 1e9)],
)
def test_a_clock_that_was_put_back_makes_no_delay_longer(moment: str, now: float) -> None:
    future = _loaded(row(**{moment: NOW}), now)
    _, raised = admit(future, GATEWAY_ROW, _FIRING, Target("loja", _DOWN), now, BACKOFF)
    assert raised is not None
    assert raised.next_at <= now + 30
    assert _loaded(waiting(next_at=NOW), NOW - 1e9).next_at == NOW - 1e9


def test_a_gateway_that_is_back_ends_the_delay_of_what_failed() -> None:
    back = replace(GATEWAY_ROW, back_at=NOW - 99)
    for failures, counted in ((1, "accepted"), (0, "cooldown")):
        before = row(**{**_FAILED, "failures": failures})
        found, _ = admit(before, back, _FIRING, Target("loja", _DOWN), NOW, BACKOFF)
        assert found == counted


# Whole payloads, and what becomes of them in time.


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def _accept(world: World, *alerts: Alert) -> list[str]:
    return [str(one) for one in world.hook.writer.accept(alerts)]


def test_each_channel_of_a_payload_counts_for_itself(world: World) -> None:
    world.put("b", Status.DISCONNECTED)
    world.run(1)
    stranger = Alert(_FIRING, None)
    counted = _accept(world, firing("a"), stranger, firing("b"), firing("a"), resolved("c"))
    assert counted == ["accepted", "ignored", "accepted", "coalesced", "ignored"]
    assert _accept(world, firing("loja", _SILENT), firing("loja")) == ["accepted", "coalesced"]
    # What fires says more than what is over.
    counted = _accept(world, resolved("b", _SILENT), firing("b"), resolved("b"))
    assert counted == ["ignored", "coalesced", "ignored"]
    b = world.row("b")
    assert b is not None
    assert (b.intent, b.cause) == (_REPAIR, _DOWN)


def test_nothing_for_this_hook_touches_no_state(tmp_path: Path, world: World) -> None:
    with locked(sqlite_url(tmp_path)):
        assert _accept(world) == []
        assert _accept(world, Alert(_FIRING, None)) == ["ignored"]


def test_an_alert_in_a_pause_is_kept_until_its_end(world: World) -> None:
    world.put(status=Status.DISCONNECTED)
    world.gateway.on_call = lambda _call, channel: world.put(channel)
    world.alert()
    world.run(10)
    assert world.outcomes() == ["reconnected"]
    ended = world.ended()[0].finished_at
    world.put(status=Status.DISCONNECTED)
    world.run(50)
    assert _accept(world, firing(), firing()) == ["cooldown"] * 2
    world.skip(ended + 297 - world.clock.time())
    world.run(2)
    assert len(world.gateway.calls) == 1
    world.run(10)
    assert len(world.gateway.calls) == 2, "one for both"
    assert world.outcomes() == ["reconnected"] * 2
    world.skip(3600)
    world.run(5)
    assert len(world.gateway.calls) == 2


_MINUTES = [5, 10, 20, 40, 60, 60]


def test_the_pauses_between_repairs_that_fail_grow_to_an_hour(world: World) -> None:
    world.put(status=Status.DISCONNECTED)
    assert world.alert() == "accepted"
    for attempt, minutes in enumerate(_MINUTES, start=1):
        world.run(100, until=lambda n=attempt: len(world.ended()) == n)  # type: ignore[misc]
        last = world.ended()[-1]
        assert (last.number, last.outcome) == (attempt, Outcome.STILL_DISCONNECTED)
        # The first two come by themselves; later ones need to hear that it still fires.
        found = world.row()
        assert found is not None
        assert found.is_open == (minutes <= 10)
        world.run(1)
        assert world.alert() == "cooldown"
        world.skip(last.finished_at + minutes * 60 - 3 - world.clock.time())
        world.run(2)
        assert len(world.gateway.calls) == attempt
        world.run(5)
        assert len(world.gateway.calls) == attempt + 1


@pytest.mark.parametrize(
    ("cause", "status", "answer", "outcome"),
    [
        (_DOWN, Status.QR_REQUIRED, QrKind.QR, "qr_required"),
        (_SILENT, Status.CONNECTED, QrKind.ACCEPTED, "requested"),
    ],
)
def test_what_did_not_fail_is_not_tried_again_unasked(
    world: World, cause: RepairCause, status: Status, answer: QrKind, outcome: str
) -> None:
    world.put(status=status)
    world.gateway.answer = answer
    for number in (1, 2):
        assert world.alert("loja", cause) == "accepted"
        world.run(100, until=lambda n=number: len(world.ended()) == n)  # type: ignore[misc]
        found = world.row()
        assert found is not None
        assert not found.is_open
        world.skip(301)
    assert world.alert("loja", cause) == "cooldown", "but asked less and less"
    assert world.outcomes() == [outcome] * 2
    assert len(world.gateway.calls) == 2


def test_old_news_calls_nothing_and_writes_no_line(world: World) -> None:
    world.put()
    world.alert()
    world.run(5)
    assert world.outcomes() == ["recovered"]
    for _ in range(3):
        assert _accept(world, firing(), firing()) == ["cooldown", "coalesced"]
        world.run(9)
    world.run(60)
    found = world.row()
    assert found is not None
    assert not found.is_open
    assert world.outcomes() == ["recovered"]
    world.alert()
    world.run(2)
    world.alert()
    world.put(status=Status.DISCONNECTED)
    world.run(20)
    assert world.gateway.calls_of("loja") == ["reconnect"], "this one was none"


def test_a_drop_between_list_and_end_is_not_lost(world: World) -> None:
    world.put(status=Status.DISCONNECTED)
    world.gateway.on_call = lambda _call, channel: world.put(channel)
    world.alert()
    world.run(60, until=lambda: world.gateway.lists == 2)
    # The list that says connected is on its way.
    world.put(status=Status.DISCONNECTED)
    assert world.alert() == "coalesced"
    world.run(5)
    assert world.outcomes() == ["reconnected"]
    world.skip(280)
    world.run(30)
    assert world.outcomes() == ["reconnected"] * 2, "nobody has said so again"


def test_what_rests_on_a_rejected_payload_is_stored_by_itself(world: World) -> None:
    reject = "WHEN new.key = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END"
    with world.hook.database.write() as connection:
        connection.execute(sa.text(f"CREATE TRIGGER no BEFORE INSERT ON channel {reject}"))
    refused, stored = world.hook.writer.accept_all([[firing(), firing("bad")], [firing()]])
    assert isinstance(refused, StateError)
    assert stored == ["accepted"]
    assert world.row() is not None
