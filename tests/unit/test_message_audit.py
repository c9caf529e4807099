"""What comes of a comparison of a gateway's messages with those that arrived."""

from __future__ import annotations

import pytest

from reconnect_hook.message_audit import Audit, AuditResult, compare
from zapwatch.messages.received import (
    Delivered,
    Received,
    ReceivedMessage,
    bare_id,
    join,
    seconds_of,
)

_NOW = 1_700_000_000.0


def _received(*ids: str, ago: float = 600, why: str = "") -> Received:
    return Received(tuple(ReceivedMessage(one, _NOW - ago, "text", "0001") for one in ids), why)


def _compare(received: Received, *arrived: str, heard: bool = False, **more: object) -> Audit:
    delivered = Delivered({"loja": set(arrived)}, {"loja"} if heard else set(), **more)  # type: ignore[arg-type]
    return compare(received, delivered, "loja", judged_until=_NOW - 60)


def test_what_both_have_is_complete() -> None:
    audit = _compare(_received("A", "B"), "A", "B")

    assert (audit.result, audit.received, audit.missed) == (AuditResult.COMPLETE, 2, ())


def test_what_only_the_gateway_has_is_missed_the_oldest_first() -> None:
    audit = _compare(join([_received("C", ago=100), _received("A", "B", ago=200)]), "B")

    assert audit.result is AuditResult.MISSED
    assert [one.id for one in audit.missed] == ["A", "C"]


def test_no_message_on_either_side_is_complete() -> None:
    assert _compare(_received()).result is AuditResult.COMPLETE


@pytest.mark.parametrize(
    ("received", "more"),
    [
        (_received("A", why="its store is off"), {}),
        (_received(), {"heard": True}),
        (_received("A", "LOST"), {"gaps": [(_NOW - 700, _NOW - 500)]}),
        (join([_received("A"), _received("LATE", ago=30)]), {}),
    ],
)
def test_what_cannot_be_known_is_neither_complete_nor_missed(
    received: Received, more: dict[str, bool]
) -> None:
    audit = _compare(received, "A", **more)

    assert audit.result is AuditResult.UNKNOWN
    assert audit.why
    assert audit.missed == ()


def test_what_is_surely_missed_is_told_although_there_may_be_more() -> None:
    audit = _compare(_received("A", "B", why="the session does not open one of its chats"), "A")

    assert audit.result is AuditResult.MISSED
    assert [one.id for one in audit.missed] == ["B"]
    assert audit.why


def test_what_arrived_in_a_gap_is_no_matter() -> None:
    audit = _compare(_received("A"), "A", gaps=[(_NOW - 700, _NOW - 500)])

    assert audit.result is AuditResult.COMPLETE


def test_another_channels_arrival_of_the_same_group_message_does_not_count() -> None:
    delivered = Delivered({"obra": {"A"}})

    audit = compare(_received("A"), delivered, "loja", judged_until=_NOW)

    assert audit.result is AuditResult.MISSED


@pytest.mark.parametrize(
    ("told", "id_"),
    [
        ("3EB0ABC", "3EB0ABC"),
        ("false_5500000000001@c.us_3EB0ABC", "3EB0ABC"),
        ("true_100000000000001@lid_3EB0ABC", "3EB0ABC"),
        ("false_120363000000000001@g.us_3EB0ABC_5500000000001@c.us", "3EB0ABC"),
        ("false_5500000000001@c.us", None),
        ("5500000000001@c.us", None),
        ("", None),
        ("x" * 129, None),
        (7, None),
        (None, None),
    ],
)
def test_the_bare_id_is_whatsapps_own(told: object, id_: str | None) -> None:
    assert bare_id(told) == id_


@pytest.mark.parametrize(
    ("told", "at"),
    [
        (1_700_000_000, 1_700_000_000.0),
        ("1700000000", 1_700_000_000.0),
        (1_700_000_000_123, 1_700_000_000.123),
        ({"low": 1_700_000_000, "high": 0}, 1_700_000_000.0),
        (0, None),
        (True, None),
        ("soon", None),
        (float("nan"), None),
        (10**400, None),
        (None, None),
    ],
)
def test_a_time_may_be_told_in_many_ways(told: object, at: float | None) -> None:
    assert seconds_of(told) == at
