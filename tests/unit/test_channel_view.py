"""How the page judges a channel, and in which order it lists them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconnect_hook.dashboard.channel_view import (
    ChannelFilter,
    ChannelHealth,
    ChannelView,
    build_chart,
    classify,
    count_by_health,
)
from reconnect_hook.dashboard.i18n import banners
from reconnect_hook.dashboard.readings import ChannelMetrics, FiringAlert, GatewayReadings
from reconnect_hook.dashboard.snapshot import ActiveProblem, Problem
from reconnect_hook.dashboard.timeline import (
    HourCounts,
    Shares,
    TimelineSpan,
    TimelineState,
    with_messages,
)
from reconnect_hook.history import Attempt, Paused, Present
from reconnect_hook.models import ChannelRow, Outcome, ProbeOutcome, RepairCause
from reconnect_hook.probe_limits import Probed
from zapwatch.config.readers import ProbeKind

_C, _D, _S, _U = (
    TimelineState.CONNECTED,
    TimelineState.DISCONNECTED,
    TimelineState.SILENT,
    TimelineState.UNKNOWN,
)
_NOW = 1_700_000_000.0
_WELL = ChannelMetrics(
    "loja", connected=True, status="connected", last_message=_NOW - 60, threshold=3600
)
_FORGOTTEN = ChannelRow("loja", "loja")


def _judge(
    watched: ChannelMetrics | None,
    remembered: ChannelRow | None,
    *,
    scanned: bool = False,
    alert: str = "",
) -> ChannelHealth:
    alerts = {"loja": (FiringAlert(alert, {}, "", ""),)} if alert else {}
    channels = {"loja": watched} if watched else {}
    watch = GatewayReadings(_NOW, gateway_up=True, log_up=True, channels=channels, alerts=alerts)
    present = Present(_NOW, {"loja": remembered} if remembered else {}, {}, {}, None)
    return classify("loja", watch, present, scanned=scanned)


_DOWN = replace(_WELL, connected=False, status="disconnected")
_UNHEARD = replace(_WELL, last_message=None)
_WAITS = replace(_FORGOTTEN, qr_required=True)
_NEVER_HEARD = "WhatsAppChannelNeverHeard"
_NEEDS_QR_SCAN, _DOES_NOT_HELP = "WhatsAppChannelNeedsQrScan", "WhatsAppReconnectFailing"


@pytest.mark.parametrize(
    ("watched", "remembered", "more", "health"),
    [
        (_WELL, None, {}, ChannelHealth.CONNECTED),
        # From its limit on it is silent; without a message, only the alert says so.
        (replace(_WELL, last_message=_NOW - 3600), None, {}, ChannelHealth.CONNECTED),
        (replace(_WELL, last_message=_NOW - 3601), None, {}, ChannelHealth.SILENT),
        (_UNHEARD, None, {}, ChannelHealth.CONNECTED),
        (_UNHEARD, None, {"alert": _NEVER_HEARD}, ChannelHealth.NEVER_HEARD),
        # A code that waits comes before everything, a zombie's too; a message proves more.
        (_DOWN, replace(_WAITS, failures=5), {}, ChannelHealth.NEEDS_SCAN),
        (replace(_DOWN, status="qr_required"), None, {}, ChannelHealth.NEEDS_SCAN),
        (None, _WAITS, {}, ChannelHealth.NEEDS_SCAN),
        (replace(_WELL, last_message=_NOW - 9999), _WAITS, {}, ChannelHealth.NEEDS_SCAN),
        (_WELL, _WAITS, {}, ChannelHealth.CONNECTED),
        (_WELL, _WAITS, {"alert": _NEEDS_QR_SCAN}, ChannelHealth.NEEDS_SCAN),
        (_WELL, _FORGOTTEN, {"alert": _NEEDS_QR_SCAN}, ChannelHealth.CONNECTED),
        # A scan counts before Prometheus knows.
        (replace(_DOWN, status="qr_required"), _WAITS, {"scanned": True}, ChannelHealth.CONNECTED),
        # Three failures in a row need a person.
        (_DOWN, replace(_FORGOTTEN, failures=2), {}, ChannelHealth.DISCONNECTED),
        (_DOWN, replace(_FORGOTTEN, failures=3), {}, ChannelHealth.FAILING),
        (_WELL, replace(_FORGOTTEN, failures=3), {}, ChannelHealth.CONNECTED),
        (_WELL, replace(_FORGOTTEN, failures=3), {"alert": _DOES_NOT_HELP}, ChannelHealth.FAILING),
        (None, None, {}, ChannelHealth.UNKNOWN),
        (ChannelMetrics("loja", last_message=_NOW, threshold=60), None, {}, ChannelHealth.UNKNOWN),
    ],
)
def test_how_a_channel_is(
    watched: ChannelMetrics | None,
    remembered: ChannelRow | None,
    more: dict[str, Any],
    health: ChannelHealth,
) -> None:
    assert _judge(watched, remembered, **more) is health


def test_without_any_readings_nothing_is_known() -> None:
    assert classify("loja", None, None, scanned=False) is ChannelHealth.UNKNOWN


def _row(name: str, kind: ChannelHealth = ChannelHealth.CONNECTED, **more: object) -> ChannelView:
    row = ChannelView(
        "wpp",
        name.casefold(),
        name,
        kind,
        said=None,
        alerts=(),
        last_message=None,
        threshold=None,
        waiting=None,
        paused=None,
        failures=0,
        last=None,
        first_quarter=100,
        strip={},
        repairs=(),
        shares=Shares(),
    )
    return replace(row, **more)  # type: ignore[arg-type]


def _attempt(at: float) -> Attempt:
    return Attempt(1, "", "", RepairCause.MANUAL, 1, "", Outcome.RECOVERED, "", at, at)


@pytest.mark.parametrize(
    ("probed", "last_message", "broken"),
    [
        (Probed("loja", ProbeKind.DELIVERY, ProbeOutcome.DELIVERY_BROKEN, 10.0), None, True),
        (Probed("loja", ProbeKind.DELIVERY, ProbeOutcome.DELIVERY_BROKEN, 10.0), 9.0, True),
        (Probed("loja", ProbeKind.DELIVERY, ProbeOutcome.DELIVERY_BROKEN, 10.0), 11.0, False),
        (Probed("loja", ProbeKind.DELIVERY, ProbeOutcome.PASSED, 10.0), 9.0, False),
        (None, None, False),
    ],
)
def test_a_broken_delivery_needs_somebody_until_a_message_arrives(
    probed: Probed | None, last_message: float | None, broken: bool
) -> None:
    row = _row("loja", probed=probed, last_message=last_message)
    assert row.is_delivery_broken is broken
    assert row.needs_attention is broken


def test_a_channel_counts_as_dead_until_a_repair_has_helped() -> None:
    dead = Probed("loja", ProbeKind.ECHO, ProbeOutcome.FAILED, 10.0)
    assert _row("loja", probed=dead).is_proven_dead
    assert _row("loja", probed=dead, last=_attempt(9)).is_proven_dead
    failed = replace(_attempt(11), outcome=Outcome.REQUESTED)
    assert _row("loja", probed=dead, last=failed).is_proven_dead
    assert not _row("loja", probed=dead, last=_attempt(11)).is_proven_dead
    assert not _row("loja").is_proven_dead
    unproved = replace(dead, outcome=ProbeOutcome.OTHER_FAILED)
    assert not _row("loja", probed=unproved).is_proven_dead


_ROWS = [
    _row("Zeta", ChannelHealth.NEEDS_SCAN, last_message=50.0),
    _row("alfa", last_message=10.0),
    _row("Beta", ChannelHealth.SILENT, last_message=5.0, last=_attempt(7)),
    _row("gama", ChannelHealth.UNKNOWN, paused=Paused("gama", None), last=_attempt(9)),
]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, "Zeta Beta gama alfa"),
        ({"sort": "name"}, "alfa Beta gama Zeta"),
        ({"sort": "message"}, "gama Beta alfa Zeta"),
        ({"sort": "repair"}, "gama Beta alfa Zeta"),
        ({"show": "attention"}, "Zeta"),
        ({"show": "trouble"}, "Zeta Beta"),
        ({"show": "paused"}, "gama"),
        ({"q": " B e"}, "Beta"),
        ({"q": "nobody"}, ""),
        ({"show": "<b>", "sort": "../.."}, "Zeta Beta gama alfa"),
    ],
)
def test_the_list_is_what_was_chosen(query: dict[str, str], names: str) -> None:
    assert " ".join(row.channel for row in ChannelFilter.parse(query).of(_ROWS)) == names


def test_the_tiles_count() -> None:
    counts = {"attention": 1, "trouble": 2, "connected": 1, "paused": 1, "unknown": 0, "all": 4}
    assert count_by_health(_ROWS) == counts
    assert count_by_health(_ROWS, {"wpp"}) == {**counts, "unknown": 1}
    assert count_by_health(_ROWS, {"other"}) == counts


def test_where_no_repair_begins_by_itself_every_problem_needs_somebody() -> None:
    rows = [replace(row, unattended=True) for row in _ROWS]
    found = ChannelFilter.parse({"show": "attention"}).of(rows)
    assert [row.channel for row in found] == ["Zeta", "Beta"]


def test_a_running_outage_is_red_whatever_was_repaired_before() -> None:
    always = (TimelineSpan(_C, 0, 96),)
    well = _row("loja", strip=dict.fromkeys(range(100, 196), _C), repairs=((195, True),))
    assert well.strip_spans == always
    for said, kind in (
        ("disconnected", ChannelHealth.DISCONNECTED),
        ("qr_required", ChannelHealth.NEEDS_SCAN),
    ):
        down = replace(well, kind=kind, said=said)
        assert down.strip_spans == (
            TimelineSpan(_C, 0, 95),
            TimelineSpan(_D, 95, 1),
        )
        assert down.hours_in(TimelineState.DISCONNECTED) == 0.25
    zombie = replace(well, kind=ChannelHealth.NEEDS_SCAN, said="connected")
    assert zombie.strip_spans == always


def test_the_first_day_is_drawn_from_its_beginning_on() -> None:
    assert _row("loja").strip_begin is None
    strip = dict.fromkeys(range(150, 196), _C)
    assert _row("loja", strip=strip).strip_begin == 50
    assert _row("loja", repairs=((130, True),)).strip_begin == 30
    assert _row("loja", strip={195: _C}).strip_begin == 92, "an hour at least"


@pytest.mark.parametrize(
    ("strip", "heard", "limit", "spans"),
    [
        ({}, set(), 3600.0, [(_U, 96)]),
        ({}, {100, 101, 103}, None, [(_C, 2), (_U, 1), (_C, 1), (_U, 92)]),
        ({}, {100}, 3600.0, [(_C, 1), (_U, 4), (_S, 91)]),
        ({}, {50}, 3600.0, [(_S, 96)]),
        ({}, {50, 194}, 48 * 3600.0, [(_U, 94), (_C, 1), (_U, 1)]),
        # What Prometheus knows counts more.
        ({190: _D, 191: _D, 192: _D}, {190, 193}, None, [(_U, 90), (_D, 3), (_C, 1), (_U, 2)]),
    ],
)
def test_quarters_that_prometheus_does_not_know_are_those_of_the_messages(
    strip: dict[int, TimelineState],
    heard: set[int],
    limit: float | None,
    spans: list[tuple[TimelineState, int]],
) -> None:
    row = _row("loja", strip=with_messages(strip, 100, heard, limit))
    assert [(one.state, one.length) for one in row.strip_spans] == spans


def test_a_strip_that_is_not_drawn_any_more_moves_with_the_time() -> None:
    row = _row(
        "loja", strip=dict.fromkeys(range(100, 190), _C) | dict.fromkeys(range(190, 196), _D)
    )
    moved = replace(row, first_quarter=104).strip_spans
    assert [(one.state, one.length) for one in moved] == [(_C, 86), (_D, 6), (_U, 4)]


def test_the_first_days_messages_are_drawn_in_whole_days() -> None:
    hours = [HourCounts(3600.0 * number, None, None) for number in range(168)]
    assert build_chart(hours) is None, "nothing was counted, which is not that none came"
    hours[-30] = HourCounts(0.0, 3.0, None)
    hours[-20] = HourCounts(0.0, 1.4, 1.4)  # as Prometheus extrapolates
    chart = build_chart(hours)
    assert chart is not None
    assert (chart.days, chart.received, chart.sent, chart.most) == (2, 4, 1, 3)
    assert chart.hours[18] == HourCounts(0.0, 3, 0)
    assert chart.hours[28] == HourCounts(0.0, 1, 1)


@pytest.mark.parametrize(
    ("problems", "gateways", "titles"),
    [
        ("prometheus", 1, ["Prometheus does not answer."]),
        ("prometheus alertmanager", 1, ["Neither Prometheus nor Alertmanager answers."]),
        ("gateway gateway-rests", 1, ["The gateway is not responding."]),
        ("exporter", 1, ["Prometheus gets nothing from the Zapwatch monitor."]),
        (
            "gateway alertmanager",
            1,
            ["The gateway is not responding.", "Alertmanager does not answer."],
        ),
        (
            "prometheus budget",
            1,
            [
                "Prometheus does not answer.",
                "Requests to this gateway are limited (requests_per_month).",
            ],
        ),
    ],
)
def test_one_cause_has_one_banner(problems: str, gateways: int, titles: list[str]) -> None:
    active = [ActiveProblem(Problem(one), "wpp") for one in problems.split()]
    assert [str(one.title) for one in banners(active, gateways)] == titles


def test_an_exporter_that_watches_several_gateways_is_one_cause() -> None:
    active = [ActiveProblem(Problem.EXPORTER, name) for name in ("a", "b")]
    (banner,) = banners(active, 2)
    assert banner.gateway is None
    assert [one.gateway for one in banners(active, 3)] == ["a", "b"]


def test_marks_and_hours_stand_where_they_belong() -> None:
    strip = dict.fromkeys(range(100, 190), _C) | dict.fromkeys(range(190, 196), _D)
    row = _row("loja", strip=strip, repairs=((99, True), (195, False)))
    assert row.hours_in(TimelineState.DISCONNECTED) == 1.5
    assert row.strip_marks == [(95, False)], "what is older than the strip is not drawn"
