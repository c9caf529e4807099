"""What comes of a comparison of a gateway's messages with those that arrived."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from reconnect_hook.message_audit import Audit, AuditResult, MessageAuditor, judge
from tests.support.clock import HandMovedClock
from tests.support.memory import least_peak
from zapwatch.channels import Channel, Status
from zapwatch.config.readers import AuditMode
from zapwatch.gateways.helpers import Entry, read_chats
from zapwatch.messages.message import Delivered, IdSet, Received, Wanted, bare_id, seconds_of

_NOW = 1_700_000_000.0
_GAP: dict[str, Any] = {"gaps": [(_NOW - 700, _NOW - 500)]}


def _entry(id_: str, ago: float = 600) -> Entry:
    return Entry(_NOW - ago, id_, "text", "5500000000001@c.us")


def _compare(
    entries: list[Entry], *arrived: str, heard: bool = False, why: str = "", **more: object
) -> Audit:
    """Return the result for what a gateway lists and what has arrived."""
    delivered = Delivered(
        lambda _key, ids: set(ids) & set(arrived),
        {"loja"} if heard else set(),
        **more,  # type: ignore[arg-type]
    )

    def absent(ids: Collection[str]) -> Collection[str]:
        return set(ids).difference(delivered.among("loja", ids))

    received = read_chats([[entries]], Wanted(0, _NOW, absent))
    told = replace(received, cannot_know=why)
    return judge(told, delivered, "loja", until=_NOW, delivery_seconds=300)


def test_what_both_have_is_complete() -> None:
    audit = _compare([_entry("A"), _entry("B")], "A", "B", heard=True)
    assert (audit.result, audit.received, audit.missed) == (AuditResult.COMPLETE, 2, ())


def test_what_only_the_gateway_has_is_missed_the_oldest_first() -> None:
    audit = _compare([_entry("C", 400), _entry("A"), _entry("B")], "B")
    assert audit.result is AuditResult.MISSED
    assert [one.id for one in audit.missed] == ["A", "C"]


@pytest.mark.parametrize("entries", [[], [_entry("UNDERWAY", 30)]])
def test_what_cannot_have_arrived_yet_is_no_matter(entries: list[Entry]) -> None:
    assert _compare(entries).result is AuditResult.COMPLETE


@pytest.mark.parametrize(
    ("entries", "more"),
    [
        ([_entry("A")], {"why": "its store is off"}),
        ([], {"heard": True}),
        ([_entry("A"), _entry("LOST")], _GAP),
        ([_entry("A"), _entry("LATE", 100)], {}),
        ([_entry("A"), _entry("LOST"), _entry("LATE", 100)], {"why": "its store is off"} | _GAP),
    ],
)
def test_what_cannot_be_known_is_neither_complete_nor_missed(
    entries: list[Entry], more: dict[str, Any]
) -> None:
    audit = _compare(entries, "A", **more)
    assert audit.result is AuditResult.UNKNOWN
    assert audit.why
    assert audit.why == more.get("why", audit.why), "the first reason is told"
    assert audit.missed == ()


def test_what_is_surely_missed_is_told_although_there_may_be_more() -> None:
    audit = _compare([_entry("A"), _entry("B")], "A", why="the session does not open one chat")
    assert audit.result is AuditResult.MISSED
    assert [one.id for one in audit.missed] == ["B"]
    assert audit.why


def test_what_arrived_in_a_gap_is_no_matter() -> None:
    audit = _compare([_entry("A")], "A", **_GAP)
    assert audit.result is AuditResult.COMPLETE


def test_a_message_of_two_chats_counts_once() -> None:
    """As where a gateway lists a person by number and by ``@lid``."""
    received = read_chats([[[_entry("A")]], [[_entry("A"), _entry("B")]]], Wanted(0, _NOW))
    assert received == Received(received.messages, count=2)
    assert [one.id for one in received.messages] == ["A", "B"]


def test_an_audit_reads_log_and_gateway_since_the_outage() -> None:
    clock = HandMovedClock()
    asked: list[Any] = []
    since = clock.time() - 3600
    loja = Channel("Loja 1", Status.CONNECTED)

    def delivered(channels: Collection[Channel], begin: float, _pause: object) -> Delivered:
        asked.append((channels, begin))
        return Delivered(lambda key, ids: {"B"} & set(ids) if key == loja.key else (), {loja.key})

    def received(channel: Channel, wanted: Wanted) -> Received:
        asked.append((channel, wanted.since))
        rows = [Entry(clock.time() - 600, id_, "text", "1@c.us") for id_ in "ABC"]
        return read_chats([[rows]], wanted)

    one: Any = SimpleNamespace(
        recorded=lambda *_: (set(), set()),
        received=received,
        delivered=delivered,
        delivery_seconds=300,
    )
    auditor = MessageAuditor(one, one, one, one, lambda *_: None, AuditMode.OFF, clock=clock)
    [(_, audit)] = auditor.audit([(loja, since)])
    assert asked == [([loja], since), (loja, since)]
    assert (audit.result, [message.id for message in audit.missed]) == ("missed", ["A", "C"])


def test_a_day_of_messages_takes_little_memory() -> None:
    """Both sides of an audit with a thousandth missed: eight bytes a message and side."""
    count, size = 10_000, 500

    def audit() -> None:
        arrived = IdSet()
        for begin in range(0, count, size):
            page = range(begin, begin + size)
            arrived.add(f"3EB0{number:020}" for number in page if number % 1000)
        pages = (
            [_entry(f"3EB0{number:020}") for number in range(begin, begin + size)]
            for begin in range(0, count, size)
        )

        def absent(ids: Collection[str]) -> Collection[str]:
            return set(ids) - arrived.among(ids)

        received = read_chats([pages], Wanted(0, _NOW, absent))
        assert (len(received.messages), received.count) == (count // 1000, count)

    assert least_peak(audit) < 1_500_000


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
        ("1700000000123456", pytest.approx(1_700_000_000.123456)),
        (1_700_000_000_123_456_789, pytest.approx(1_700_000_000.123)),
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
