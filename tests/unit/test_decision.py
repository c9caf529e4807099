"""What becomes of a row at a look and after a call: the tables of the hook's decisions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from reconnect_hook.decision import (
    CREATE_TRIES,
    CallAnswer,
    Close,
    Decision,
    End,
    Enter,
    InHand,
    MakeCall,
    Policy,
    Probe,
    Seen,
    Verify,
    Wait,
    after_call,
    close,
    conclude,
    decide,
)
from reconnect_hook.models import (
    PROBE_CAUSES,
    Action,
    AskedBy,
    Backoff,
    ChannelRow,
    GatewayRow,
    Intent,
    Outcome,
    Phase,
    ProbeOutcome,
    RepairCause,
    Step,
)
from zapwatch.channels import Channel, Status
from zapwatch.config.readers import ProbeKind
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, Operation, QrKind

NOW = 1_700_000_000.0
LOOK = 7
LED = GatewayRow(look=LOOK, epoch=3)
POLICY = Policy(
    Backoff(300),
    60.0,
    lambda _channel: 14_400.0,
    Action.GET_QR,
    probe_kind=lambda _channel: ProbeKind.QUERY,
    probe_after=3600.0,
)
WITHOUT_PROBES = replace(POLICY, probe_kind=lambda _channel: ProbeKind.OFF)
WITH_RESTARTS = replace(POLICY, allow_restart=True)
UNREPAIRABLE = Channel("Loja", Status.DISCONNECTED, repairable=False)


def row(**columns: Any) -> ChannelRow:
    """Return an open row of a repair that has just been asked for."""
    usual: dict[str, Any] = {
        "listed": True,
        "intent": Intent.REPAIR,
        "since": NOW - 5,
        "raised_in": LOOK - 1,
        "next_at": NOW,
        "epoch": LED.epoch,
    }
    return ChannelRow("loja", "Loja", **{**usual, **columns})


def called(phase: Phase, **columns: Any) -> ChannelRow:
    """Return the row of a repair whose call was answered 20 s ago."""
    usual: dict[str, Any] = {
        "phase": phase,
        "step": Step.RECONNECT,
        "action": Action.GET_QR,
        "asked_at": NOW - 21,
        "called_at": NOW - 20,
        "called_in": LOOK - 1,
        "deadline": NOW + 40,
    }
    return row(**{**usual, **columns})


def thrown(step: Step, **columns: Any) -> ChannelRow:
    return called(Phase.RESTARTING, step=step, restarting=True, **columns)


def probe(**columns: Any) -> ChannelRow:
    return row(**{"intent": Intent.PROBE, "cause": RepairCause.SUSPECT, **columns})


def silent(**columns: Any) -> ChannelRow:
    return row(**{"cause": RepairCause.SILENT, **columns})


def seen(status: Status | None, age: float | None = None) -> Seen:
    return Seen(LOOK, None if status is None else Channel("Loja", status), age)


def heard(age: float) -> Seen:
    return seen(Status.CONNECTED, age)


ABSENT = seen(None)
CONNECTED = seen(Status.CONNECTED)
DOWN = seen(Status.DISCONNECTED)
STARTING = seen(Status.INITIALIZING)
QR = seen(Status.QR_REQUIRED)
_THIRD = {"attempts": 3, "called_at": NOW - 300}
_RETRY = {"attempts": 1, "failures": 1, "called_at": NOW - 100}


def _end(outcome: Outcome, status: Status | None = Status.CONNECTED, **more: Any) -> End:
    return End(outcome, status, **more)


_RECOVERED = _end(Outcome.RECOVERED, action=Action.NONE)
_RECONNECTED = _end(Outcome.RECONNECTED)
_UNKNOWN = End(Outcome.UNKNOWN_CHANNEL, listed=False)
_ASK = MakeCall(Step.RECONNECT)
_CREATE = MakeCall(Step.CREATE)
_CODE = MakeCall(Step.QR)
_RESUMED = Probe(resumes=True)
_STILL_DOWN = _end(Outcome.STILL_DISCONNECTED, Status.DISCONNECTED)
_SEEN_DOWN = Close(well=False)
_LISTED_STILL = "the session was to be thrown away, and is still listed"
_NOT_GONE = _end(Outcome.FAILED, Status.DISCONNECTED, detail=_LISTED_STILL)
_NEEDS_SCAN = _end(Outcome.QR_REQUIRED, Status.QR_REQUIRED)


_LOOKS: dict[str, tuple[ChannelRow, Seen, Decision]] = {
    # What this leader has in hand.
    "1 calling": (row(phase=Phase.CALLING), DOWN, InHand()),
    "1 proving": (row(phase=Phase.PROVING), ABSENT, InHand()),
    "1 probing": (probe(phase=Phase.PROBING), CONNECTED, InHand()),
    # What nobody has in hand any more.
    "2 calling": (row(phase=Phase.CALLING, epoch=2), DOWN, _ASK),
    "2 calling, well": (row(phase=Phase.CALLING, epoch=2), CONNECTED, _RECOVERED),
    "2 calling again": (called(Phase.CALLING, epoch=2, step=Step.QR), DOWN, _CODE),
    "2 proving": (called(Phase.PROVING, epoch=2), DOWN, Wait()),
    "2 probing": (
        probe(phase=Phase.PROBING, epoch=2, probe_began_at=NOW - 60),
        CONNECTED,
        _RESUMED,
    ),
    "2 probing, raised": (row(phase=Phase.PROBING), DOWN, _ASK),
    # A session that was thrown away.
    "3 deleted": (thrown(Step.DELETE), ABSENT, _CREATE),
    "3 not created yet": (thrown(Step.CREATE, deadline=NOW + 5), ABSENT, Wait(NOW + 5)),
    "3 created again": (thrown(Step.CREATE, deadline=NOW), ABSENT, _CREATE),
    "3 flag": (row(restarting=True), ABSENT, _CREATE),
    "3 its leader died": (
        row(restarting=True, phase=Phase.CALLING, epoch=2, called_at=NOW - 1),
        ABSENT,
        _CREATE,
    ),
    "3 flag, in backoff": (
        row(restarting=True, attempts=1, called_at=NOW - 100),
        ABSENT,
        Wait(NOW + 200),
    ),
    "3b not gone yet": (called(Phase.RESTARTING, step=Step.DELETE), DOWN, Wait()),
    "3b not gone": (called(Phase.RESTARTING, step=Step.DELETE, deadline=NOW), DOWN, _NOT_GONE),
    "3b is there": (called(Phase.RESTARTING, step=Step.CREATE), DOWN, _ASK),
    # Who is not listed.
    "4 repair": (row(), ABSENT, _UNKNOWN),
    "4 probe": (probe(), ABSENT, Close(well=False)),
    "4 called": (called(Phase.VERIFYING), ABSENT, _UNKNOWN),
    # After the call.
    "6 list before the call": (called(Phase.VERIFYING, called_in=LOOK), CONNECTED, Wait()),
    "7 verifying": (called(Phase.VERIFYING), CONNECTED, _RECONNECTED),
    "7 starting": (called(Phase.STARTING), CONNECTED, _RECONNECTED),
    "8 heard since it was asked": (called(Phase.VERIFYING, silent=True), heard(22), _RECONNECTED),
    "8 heard before": (called(Phase.VERIFYING, silent=True, called_at=NOW - 9), heard(23), Wait()),
    "8 proof": (called(Phase.VERIFYING, silent=True), CONNECTED, Probe(proof=True)),
    "8 proof had": (called(Phase.VERIFYING, silent=True, tries=1), CONNECTED, Wait()),
    "8 nothing heard": (
        called(Phase.VERIFYING, silent=True, tries=1, deadline=NOW),
        CONNECTED,
        _end(Outcome.REQUESTED),
    ),
    # A channel that the gateway calls connected.
    "9 force": (row(intent=Intent.FORCE, cause=RepairCause.MANUAL), CONNECTED, _ASK),
    "9 manual": (row(cause=RepairCause.MANUAL), CONNECTED, _ASK),
    "9 in backoff": (row(cause=RepairCause.MANUAL, **_RETRY), CONNECTED, Wait(NOW + 200)),
    "10 recheck": (row(intent=Intent.RECHECK, qr_required=True), CONNECTED, _RECOVERED),
    "10 repair": (row(**_RETRY), CONNECTED, _RECOVERED),
    "10 no news of before": (row(), CONNECTED, _RECOVERED),
    "10 after the backoff": (row(since=NOW - 50, called_at=NOW - 400), CONNECTED, _RECOVERED),
    "11 recheck": (row(intent=Intent.RECHECK), CONNECTED, Close()),
    "11 stale": (row(since=NOW - 14, seen_at=NOW - 15), CONNECTED, Close()),
    "11 stale yet": (row(since=NOW - 2, seen_at=NOW - 4), CONNECTED, Wait(NOW + 6)),
    "11 in backoff": (row(since=NOW - 200, called_at=NOW - 400), CONNECTED, Close()),
    "12 came back": (silent(attempts=1, last_status=Status.DISCONNECTED), CONNECTED, _RECOVERED),
    "12 heard": (silent(), heard(35), _RECOVERED),
    "13 not heard": (silent(), heard(36), MakeCall(Step.RECONNECT, silent=True)),
    # However long it waited: what is older than the threshold is silence.
    "13 not heard for the threshold": (
        silent(since=NOW - 20_000),
        heard(14_401),
        MakeCall(Step.RECONNECT, silent=True),
    ),
    "13 in backoff": (
        silent(attempts=2, called_at=NOW - 301, last_cause=RepairCause.SILENT),
        CONNECTED,
        Wait(NOW + 299),
    ),
    "14": (probe(), heard(35), Close(well=False, heard=True)),
    "15": (probe(), heard(36), Probe()),
    "15 asked by a person": (probe(cause=RepairCause.ASKED), heard(1), Probe()),
    "15 probed lately": (probe(probe_began_at=NOW - 600), CONNECTED, Wait(NOW + 300)),
    "15 probed lately, asked": (
        probe(cause=RepairCause.ASKED, probe_began_at=NOW - 600),
        CONNECTED,
        Probe(),
    ),
    "15 later": (probe(step=Step.POSTPONED, deadline=NOW + 9), CONNECTED, Wait(NOW + 9)),
    "15 goes on": (
        probe(step=Step.POSTPONED, deadline=NOW, probe_began_at=NOW - 60),
        CONNECTED,
        _RESUMED,
    ),
    # A channel that is not.
    "16 recheck": (row(intent=Intent.RECHECK), DOWN, _SEEN_DOWN),
    "16 probe": (probe(), QR, Close(well=False)),
    "17 verifying": (called(Phase.VERIFYING), QR, _NEEDS_SCAN),
    "17 starting": (called(Phase.STARTING), QR, _NEEDS_SCAN),
    "19": (called(Phase.VERIFYING, deadline=NOW, stuck=2), DOWN, _STILL_DOWN),
    "20": (called(Phase.VERIFYING), STARTING, Wait()),
    "21": (called(Phase.STARTING), STARTING, Wait()),
    "22": (called(Phase.STARTING), DOWN, _CODE),
    "22 after 5 s": (called(Phase.STARTING, called_at=NOW - 4), DOWN, Wait()),
    "22 started, after 2 s": (
        called(Phase.STARTING, called_at=NOW - 3, step=Step.START),
        DOWN,
        _CODE,
    ),
    "22 created, after 2 s": (called(Phase.STARTING, step=Step.CREATE), DOWN, _ASK),
    "22 over": (called(Phase.STARTING, deadline=NOW), STARTING, Verify()),
    "23 first seen": (row(), STARTING, Wait(NOW + 120)),
    "23 starting": (row(starting_since=NOW - 100), STARTING, Wait(NOW + 20)),
    "24 paused": (row(paused=True), DOWN, Wait(NOW + 600, sleeps=True)),
    "24 paused for a time": (
        row(intent=Intent.FORCE, paused=True, paused_until=NOW + 9),
        DOWN,
        Wait(NOW + 9, sleeps=True),
    ),
    "24 in backoff": (row(**_RETRY), DOWN, Wait(NOW + 200)),
    "25 down": (row(), DOWN, _ASK),
    "25 qr": (row(), QR, _ASK),
    "25 silent and down": (silent(), seen(Status.UNKNOWN), _ASK),
    "25 stuck": (row(starting_since=NOW - 120), STARTING, MakeCall(Step.RECONNECT, stuck=True)),
    "25 force": (row(intent=Intent.FORCE, **_RETRY), DOWN, _ASK),
    "25 pause over": (row(paused=True, paused_until=NOW), DOWN, _ASK),
    # Another status, or another cause, ends a long backoff; the cooldown stays.
    "25 other status": (row(**_THIRD, last_status=Status.QR_REQUIRED), DOWN, _ASK),
    "25 other cause": (row(**_THIRD, last_cause=RepairCause.SILENT), DOWN, _ASK),
}


@pytest.mark.parametrize(("state", "found", "decision"), _LOOKS.values(), ids=_LOOKS)
def test_what_a_look_means_for_a_row(state: ChannelRow, found: Seen, decision: Decision) -> None:
    assert decide(state, found, LED, POLICY, NOW) == decision


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (row(), Status.DISCONNECTED),
        (silent(), Status.CONNECTED),
        (row(cause=RepairCause.MANUAL), Status.CONNECTED),
        (row(intent=Intent.FORCE, cause=RepairCause.MANUAL), Status.CONNECTED),
    ],
)
def test_what_cannot_be_repaired_is_not_called(state: ChannelRow, status: Status) -> None:
    """Line 5."""
    channel = replace(UNREPAIRABLE, status=status)
    end = decide(state, Seen(LOOK, channel), LED, POLICY, NOW)
    assert isinstance(end, End)
    assert (end.outcome, end.action, end.retries) == (Outcome.FAILED, Action.NONE, False)


def test_what_cannot_be_repaired_and_is_well_is_left() -> None:
    channel = replace(UNREPAIRABLE, status=Status.CONNECTED)
    assert decide(row(**_RETRY), Seen(LOOK, channel), LED, POLICY, NOW) == _RECOVERED
    assert decide(probe(), Seen(LOOK, UNREPAIRABLE), LED, POLICY, NOW) == Close(well=False)


@pytest.mark.parametrize(
    ("stuck", "policy", "restarts"),
    [(2, WITH_RESTARTS, True), (1, WITH_RESTARTS, False), (9, POLICY, False)],
)
def test_a_session_is_thrown_away_last(stuck: int, policy: Policy, restarts: bool) -> None:
    """Line 18."""
    over = called(Phase.VERIFYING, deadline=NOW, stuck=stuck, failures=9, attempts=9)
    expected = MakeCall(Step.DELETE) if restarts else None
    found = decide(over, DOWN, LED, policy, NOW)
    assert (found if isinstance(found, MakeCall) else None) == expected
    assert decide(replace(over, deadline=NOW + 1), DOWN, LED, policy, NOW) == Wait()


def test_without_probes_nothing_is_probed() -> None:
    over = called(Phase.VERIFYING, silent=True)
    assert decide(over, CONNECTED, LED, WITHOUT_PROBES, NOW) == Wait()
    closed = decide(probe(), CONNECTED, LED, WITHOUT_PROBES, NOW)
    assert closed == Close(well=False)


@pytest.mark.parametrize(
    ("columns", "kind", "is_called"),
    [
        ({}, ProbeKind.DELIVERY, False),
        ({}, ProbeKind.ECHO, False),
        ({}, ProbeKind.QUERY, True),
        ({"called_at": NOW - 14_400}, ProbeKind.DELIVERY, True),
        ({"probe_ended_at": NOW - 4031}, ProbeKind.DELIVERY, True),
        ({"probe_ended_at": None}, ProbeKind.DELIVERY, True),
        ({"probe_outcome": ProbeOutcome.UNDECIDED}, ProbeKind.DELIVERY, True),
        ({"cause": RepairCause.MANUAL}, ProbeKind.DELIVERY, True),
    ],
)
def test_a_session_that_passed_since_it_was_reconnected_needs_another_silence(
    columns: dict[str, Any], kind: ProbeKind, is_called: bool
) -> None:
    passed = {
        "attempts": 1,
        "last_cause": RepairCause.SILENT,
        "asked_at": NOW - 4030,
        "called_at": NOW - 4000,
        "probe_outcome": ProbeOutcome.PASSED,
        "probe_ended_at": NOW - 4020,
    }
    policy = replace(POLICY, probe_kind=lambda _channel: kind)
    found = decide(silent(**{**passed, **columns}), CONNECTED, LED, policy, NOW)
    assert isinstance(found, MakeCall if is_called else Close)


def test_what_failed_while_the_gateway_was_away_does_not_wait() -> None:
    waits = row(attempts=4, failures=4, called_at=NOW - 100)
    assert isinstance(decide(waits, DOWN, LED, POLICY, NOW), Wait)
    back = replace(LED, back_at=NOW - 99)
    assert decide(waits, DOWN, back, POLICY, NOW) == _ASK
    assert decide(replace(waits, failures=8), DOWN, back, POLICY, NOW) == Wait(NOW + 156)


_DEADLINES = (None, NOW, NOW + 1)


def _all_rows() -> Any:
    causes = (
        RepairCause.DISCONNECTED,
        RepairCause.SILENT,
        RepairCause.MANUAL,
        RepairCause.ECHO_LOST,
        RepairCause.SUSPECT,
        RepairCause.ASKED,
    )
    intents = (Intent.PROBE, Intent.RECHECK, Intent.REPAIR, Intent.FORCE)
    for phase, intent, cause, epoch in itertools.product(Phase, intents, causes, (2, 3)):
        if (cause in PROBE_CAUSES) != (intent is Intent.PROBE) and intent is not Intent.RECHECK:
            continue
        flags = itertools.product((False, True), repeat=4)
        for deadline, (restarting, paused, episode, was_called) in itertools.product(
            _DEADLINES, flags
        ):
            yield row(
                phase=phase,
                intent=intent,
                cause=cause,
                epoch=epoch,
                deadline=deadline,
                restarting=restarting,
                paused=paused,
                attempts=int(episode),
                called_at=NOW - 100 if was_called else None,
                called_in=LOOK - 1 if was_called else 0,
            )


def test_every_combination_has_one_decision_and_none_breaks_a_rule() -> None:
    met: set[type] = set()
    found_by_look = [ABSENT, seen(Status.CONNECTED, 1.0), *map(seen, Status)]
    for state, look in itertools.product(_all_rows(), found_by_look):
        status = look.channel.status if look.channel else None
        before = replace(state)
        found = decide(state, look, LED, POLICY, NOW)
        assert state == before, "deciding changes nothing"
        met.add(type(found))
        in_hand = state.epoch == LED.epoch and (
            state.phase in {Phase.CALLING, Phase.PROVING}
            or (state.phase is Phase.PROBING and state.intent is Intent.PROBE)
        )
        assert isinstance(found, InHand) == in_hand
        if isinstance(found, MakeCall):
            assert state.in_work or not state.paused, "what is under way goes on"
            assert state.intent >= Intent.REPAIR or state.in_work or state.restarting
        if isinstance(found, Probe):
            assert status is Status.CONNECTED
            assert not (state.paused and not found.proof)
        if isinstance(found, End):
            assert (found.outcome is Outcome.UNKNOWN_CHANNEL) != found.listed
            if found.outcome in {Outcome.RECOVERED, Outcome.RECONNECTED, Outcome.REQUESTED}:
                assert status is Status.CONNECTED
    assert met == {InHand, Wait, Verify, MakeCall, Probe, End, Close}


# The answer to a call.


def _error(kind: GatewayErrorKind, **more: Any) -> GatewayError:
    return GatewayError(Operation.RECONNECT, kind, "made up", request_id="id", **more)


def _failed(*, whole: bool, **more: Any) -> End:
    detail = more.pop("detail", str(_error(GatewayErrorKind.HTTP)) + " (request id)")
    return End(Outcome.FAILED, detail=detail, of_the_whole=whole)


_HTTP = _error(GatewayErrorKind.HTTP)
_TIMEOUT = _error(GatewayErrorKind.TIMEOUT)
_SECRET = _error(GatewayErrorKind.UNAUTHORIZED)
_OWN_SECRET = _error(GatewayErrorKind.UNAUTHORIZED, one_channel=True)
_VERIFYING = Enter(Phase.VERIFYING, Step.RECONNECT, NOW + 60)


@pytest.mark.parametrize(
    ("columns", "answer", "follows"),
    [
        ({}, QrKind.QR, End(Outcome.QR_REQUIRED, Status.QR_REQUIRED)),
        ({}, QrKind.ACCEPTED, _VERIFYING),
        ({"step": Step.QR}, QrKind.ACCEPTED, replace(_VERIFYING, step=Step.QR)),
        ({}, QrKind.NOT_STARTED, MakeCall(Step.START)),
        (
            {"tries": 1, "step": Step.QR},
            QrKind.NOT_STARTED,
            End(
                Outcome.FAILED,
                detail="session not started, although start-session was accepted",
            ),
        ),
        ({}, QrKind.INITIALIZING, Enter(Phase.STARTING, Step.RECONNECT, NOW + 60)),
        # The minute counts from the first call on.
        (
            {"step": Step.QR, "deadline": NOW + 7, "tries": 1},
            QrKind.INITIALIZING,
            Enter(Phase.STARTING, Step.QR, NOW + 7, 1),
        ),
        ({"step": Step.START, "tries": 1}, None, Enter(Phase.STARTING, Step.START, NOW + 60, 1)),
        ({}, _HTTP, _failed(whole=False)),
        ({}, _TIMEOUT, _failed(whole=True, detail=f"{_TIMEOUT} (request id)")),
        ({}, _SECRET, _failed(whole=True, detail=f"{_SECRET} (request id)")),
        ({}, _OWN_SECRET, _failed(whole=False, detail=f"{_SECRET} (request id)")),
        ({"step": Step.DELETE}, None, MakeCall(Step.CREATE)),
        ({"step": Step.DELETE}, _HTTP, Enter(Phase.RESTARTING, Step.DELETE, NOW)),
        ({"step": Step.DELETE}, _TIMEOUT, Enter(Phase.RESTARTING, Step.DELETE, NOW + 60)),
        ({"step": Step.CREATE}, None, Enter(Phase.STARTING, Step.CREATE, NOW + 60)),
        (
            {"step": Step.CREATE, "tries": 2},
            _HTTP,
            Enter(Phase.RESTARTING, Step.CREATE, NOW + 5, 3),
        ),
        (
            {"step": Step.CREATE, "tries": CREATE_TRIES - 1},
            _HTTP,
            End(Outcome.FAILED, detail=f"{_HTTP} (request id)", listed=False),
        ),
    ],
)
def test_what_follows_from_an_answer(
    columns: dict[str, Any], answer: QrKind | GatewayError | None, follows: Enter | MakeCall | End
) -> None:
    state = row(**{"phase": Phase.CALLING, "step": Step.RECONNECT, **columns})
    is_error = isinstance(answer, GatewayError)
    given = CallAnswer(error=answer) if is_error else CallAnswer(answer)  # type: ignore[arg-type]
    assert after_call(state, given, POLICY, NOW) == follows


def test_where_a_channel_outlives_its_session_a_failed_deletion_ends_it() -> None:
    state = row(phase=Phase.CALLING, step=Step.DELETE)
    end = after_call(state, CallAnswer(error=_TIMEOUT), replace(POLICY, keeps_channel=True), NOW)
    assert end == _failed(whole=True, detail=f"{_TIMEOUT} (request id)")


# The end of a repair.


_EPISODE = {"attempts": 3, "failures": 2, "stuck": 1, "qr_required": True}


@pytest.mark.parametrize(
    ("outcome", "attempts", "failures", "stuck", "qr_required"),
    [
        (Outcome.RECOVERED, 0, 0, 0, False),
        (Outcome.RECONNECTED, 0, 0, 0, False),
        (Outcome.REQUESTED, 4, 2, 1, True),
        (Outcome.QR_REQUIRED, 4, 2, 0, True),
        (Outcome.FAILED, 4, 3, 1, True),
        (Outcome.STILL_DISCONNECTED, 4, 3, 2, True),
        (Outcome.UNKNOWN_CHANNEL, 4, 2, 1, True),
    ],
)
def test_each_outcome_is_remembered(
    outcome: Outcome, attempts: int, failures: int, stuck: int, qr_required: bool
) -> None:
    state = called(Phase.VERIFYING, silent=True, starting_since=NOW - 9, **_EPISODE)
    end = End(outcome, Status.QR_REQUIRED, "two\nlines " + "x" * 600)
    entry = conclude(state, end, LOOK, LED, POLICY, NOW)
    told = (state.attempts, state.failures, state.stuck, state.qr_required)
    assert told == (attempts, failures, stuck, qr_required)
    assert (entry.outcome, entry.attempt, entry.action) == (outcome, 4, Action.GET_QR)
    assert (entry.channel, entry.listed, len(entry.detail)) == ("Loja", True, 500)
    assert (state.called_at, state.called_in) == (NOW, LOOK)
    assert (state.last_status, state.last_cause) == (Status.QR_REQUIRED, RepairCause.DISCONNECTED)
    assert (state.phase, state.step, state.deadline, state.tries) == (Phase.IDLE, None, None, 0)
    assert (state.action, state.silent, state.starting_since) == (Action.NONE, False, None)
    assert not state.is_open, "the next delay is of 40 minutes: nobody asks unasked"


def test_what_called_nothing_begins_no_cooldown() -> None:
    state = row()
    conclude(state, _RECOVERED, LOOK, LED, POLICY, NOW)
    assert (state.called_at, state.seen_at, state.is_open) == (None, NOW, False)


def test_a_failure_that_called_nothing_is_followed_by_a_delay() -> None:
    state = row()
    end = _end(Outcome.FAILED, Status.DISCONNECTED, action=Action.NONE, retries=False)
    conclude(state, end, LOOK, LED, POLICY, NOW)
    assert (state.called_at, state.is_open) == (NOW, False)


@pytest.mark.parametrize(
    ("before", "attempts", "cooldown", "retries"),
    [
        (RepairCause.DISCONNECTED, 0, 300.0, True),
        (RepairCause.DISCONNECTED, 1, 300.0, True),
        (RepairCause.DISCONNECTED, 2, 300.0, False),
        (RepairCause.MANUAL, 0, 300.0, True),
        (RepairCause.DISCONNECTED, 0, 0.0, False),
        (RepairCause.DISCONNECTED, 0, 900.0, False),
    ],
)
def test_a_failure_is_tried_again_while_the_delay_is_short(
    before: RepairCause, attempts: int, cooldown: float, retries: bool
) -> None:
    policy = replace(POLICY, backoff=Backoff(cooldown))
    state = called(Phase.VERIFYING, cause=before, intent=Intent.FORCE, attempts=attempts)
    conclude(state, _end(Outcome.STILL_DISCONNECTED), LOOK, LED, policy, NOW)
    assert state.is_open == retries
    if retries:
        assert (state.intent, state.asked_by, state.since) == (Intent.REPAIR, AskedBy.RETRY, NOW)
        assert state.cause is RepairCause.DISCONNECTED, "a manual one would call who is back"
        assert state.next_at == NOW + 30, "a hint, for the list to be looked at"


@pytest.mark.parametrize(
    ("raised_in", "look", "intent", "stays"),
    [
        (LOOK - 1, LOOK, Intent.REPAIR, Intent.NONE),
        (LOOK, LOOK, Intent.REPAIR, Intent.REPAIR),
        (LOOK, LOOK, Intent.FORCE, Intent.REPAIR),
        (LOOK, LOOK, Intent.RECHECK, Intent.RECHECK),
        (LOOK, LOOK, Intent.PROBE, Intent.PROBE),
        # An end that rests on a call serves all that was raised until then.
        (LOOK, None, Intent.REPAIR, Intent.NONE),
    ],
)
def test_a_look_closes_only_what_was_raised_before_it(
    raised_in: int, look: int | None, intent: Intent, stays: Intent
) -> None:
    state = row(intent=intent, raised_in=raised_in, cause=RepairCause.SILENT)
    close(state, look, LED, POLICY, NOW, well=True)
    assert state.intent is stays
    assert state.next_at == (NOW + 10 if stays else None), "until it is no old news"
    if stays >= Intent.REPAIR:
        assert state.cause is RepairCause.DISCONNECTED
