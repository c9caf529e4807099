"""Rows count from when they came: wrong clocks, late backlogs, and reading on after a restart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.clock import HandMovedClock
from tests.support.message_logs import WrittenLog
from zapwatch.messages.log_tailer import LogTailer
from zapwatch.messages.message import ActivitySnapshot, Direction, make_token
from zapwatch.messages.source import LogMessages
from zapwatch.messages.webhook_log import MessageLog, Row

_WEEK = 7 * 24 * 3600.0
_SLACK = 60  # seconds that a busy machine may take between writing and polling
_WANTED = ("loja", "obra")
_HOURS_3, _HOURS_5 = 3 * 3600, 5 * 3600


@pytest.fixture
def last(log: MessageLog) -> LogTailer:
    return LogTailer(log, _WEEK)


def _age(view: ActivitySnapshot, key: str = "loja") -> float:
    age = view.age(key)
    assert age is not None
    return age


class TestWritersClock:
    """A writer whose clock or time zone is not the database's."""

    def test_rows_dated_hours_back_count_from_when_they_came_and_are_noticed(
        self, written: WrittenLog, last: LogTailer
    ) -> None:
        written.write_many(["loja", "obra"], age_seconds=_HOURS_3)
        assert last.poll(_WANTED).clock_offset == 0, "that may be their true age"
        written.write_many(["loja"] * 8, age_seconds=_HOURS_3)
        view = last.poll(_WANTED)

        assert _age(view) < _SLACK
        assert (view.heard_age("loja") or 0) < _SLACK
        assert _age(view, "obra") >= _HOURS_3
        assert view.messages == {("loja", Direction.IN): 8}
        assert view.clock_offset == pytest.approx(-_HOURS_3, abs=_SLACK)

    def test_rows_dated_hours_ahead_are_noticed_until_one_is_dated_right(
        self, written: WrittenLog, last: LogTailer
    ) -> None:
        written.write("loja")
        last.poll(_WANTED)
        written.postdate(written.write("loja"), _HOURS_3)
        view = last.poll(_WANTED)
        assert _age(view) < _SLACK
        assert view.clock_offset == pytest.approx(_HOURS_3, abs=_SLACK)
        assert last.poll(_WANTED).clock_offset > 0, "nothing new has been seen since"
        written.write("loja")
        assert last.poll(_WANTED).clock_offset == 0

    def test_minutes_are_a_replica_that_lags_and_no_wrong_clock(
        self, written: WrittenLog, last: LogTailer
    ) -> None:
        written.write("noise")
        last.poll(_WANTED)
        written.write("loja", age_seconds=900)
        view = last.poll(_WANTED)
        assert 900 <= _age(view) < 900 + _SLACK
        assert view.clock_offset == 0


class TestRecent:
    """What has come within a window, as a repair asks to see whether it has worked."""

    @pytest.fixture
    def messages(self, log: MessageLog) -> LogMessages:
        return LogMessages(log, _WEEK)

    def test_a_late_backlog_shows_that_a_repair_has_worked(
        self, written: WrittenLog, messages: LogMessages
    ) -> None:
        written.write("loja", age_seconds=_HOURS_5 + 60)
        assert messages.recent(60).ages == {}
        written.write_many(["loja"] * 5, age_seconds=_HOURS_5)
        assert messages.recent(60).ages.keys() == {"loja"}
        assert messages.recent(60).ages.keys() == {"loja"}, "and goes on to"

    def test_a_row_that_is_dated_in_the_future_proves_nothing_unless_it_came_since(
        self, written: WrittenLog, messages: LogMessages
    ) -> None:
        written.postdate(written.write("loja", age_seconds=_HOURS_5), _HOURS_5 + 7200)
        assert messages.recent(60).ages == {}
        written.postdate(written.write("obra"), 7200)
        assert messages.recent(60).ages.keys() == {"obra"}

    def test_ids_that_have_started_again_prove_nothing(
        self, written: WrittenLog, messages: LogMessages
    ) -> None:
        written.write_many(["noise"] * 9)
        messages.recent(60)
        written.truncate()
        written.write_many(["obra"] * 3, age_seconds=_HOURS_5)
        assert messages.recent(60).ages == {}
        written.write("loja", age_seconds=_HOURS_5)
        assert messages.recent(60).ages.keys() == {"loja"}

    def test_what_cannot_be_read_or_never_left_is_not_heard(
        self, written: WrittenLog, messages: LogMessages
    ) -> None:
        written.write(payload={"sessionId": "loja", "type": "ciphertext"})
        written.write(event_type="onselfmessage", payload={"sessionId": "loja", "ack": 0})
        assert messages.recent(60).ages == {}


class TestCheckpoint:
    """Reading on in another process."""

    @staticmethod
    def _next(log: MessageLog, checkpoint: str, lookback: float = _WEEK) -> LogTailer:
        tailer = LogTailer(log, lookback)
        tailer.restore(checkpoint)
        return tailer

    def test_a_look_back_that_ended_early_goes_on_where_a_new_channel_is_wanted(
        self, written: WrittenLog, log: MessageLog, last: LogTailer
    ) -> None:
        written.write("obra", age_seconds=900)
        written.write_noise(2000)
        written.write("loja")
        first = last.find(("loja",)).rows_read
        view = self._next(log, last.checkpoint()).find(("obra",))
        assert 900 <= _age(view, "obra") < 900 + _SLACK
        assert first + view.rows_read == 2002, "none is read twice"

    def test_a_row_that_was_committed_late_is_found(
        self, written: WrittenLog, log: MessageLog, last: LogTailer
    ) -> None:
        written.write_as(10, "noise")
        written.write_as(20, "noise")
        last.poll(_WANTED)
        checkpoint = last.checkpoint()
        written.write_as(15, "loja")
        view = self._next(log, checkpoint).find(_WANTED)
        assert _age(view) < _SLACK
        assert view.rows_read == 1

    def test_rows_since_count_from_then_at_the_latest(
        self, written: WrittenLog, log: MessageLog, last: LogTailer
    ) -> None:
        written.write("loja")
        last.poll(_WANTED)
        checkpoint = last.checkpoint()
        written.write("obra", age_seconds=_HOURS_3)
        view = self._next(log, checkpoint).find(_WANTED)
        assert _age(view, "obra") < _SLACK
        assert view.clock_offset < 0

    def test_a_log_that_has_started_again_is_looked_through(
        self, written: WrittenLog, log: MessageLog, last: LogTailer
    ) -> None:
        written.write_many(["noise"] * 5)
        last.poll(_WANTED)
        checkpoint = last.checkpoint()
        written.truncate()
        written.write("loja", age_seconds=20)
        assert _age(self._next(log, checkpoint).find(_WANTED)) < 20 + _SLACK

    def test_after_too_many_rows_a_look_back_is_made(
        self, written: WrittenLog, log: MessageLog, last: LogTailer
    ) -> None:
        written.write("obra", age_seconds=900)
        last.poll(_WANTED)
        checkpoint = last.checkpoint()
        written.write_many(["loja"] * 60)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zapwatch.messages.log_tailer._MOST_SINCE", 50)
            view = self._next(log, checkpoint).find(_WANTED)
        assert view.messages == {}, "a look back counts none"
        assert _age(view) < _SLACK
        assert _age(view, "obra") >= 900

    def test_no_row_since_is_left_unread_however_slow_the_log_is(
        self,
        written: WrittenLog,
        log: MessageLog,
        last: LogTailer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        written.write("loja", age_seconds=900)
        last.poll(_WANTED)
        written.write_many([*["noise"] * 25, "loja"])
        clock, rows_after = HandMovedClock(), log.rows_after

        def read_slowly(row_id: int, limit: int) -> list[Row]:
            clock.forward(5)
            return rows_after(row_id, min(limit, 10))

        monkeypatch.setattr(log, "rows_after", read_slowly)
        tailer = LogTailer(log, _WEEK, clock=clock)
        tailer.restore(last.checkpoint())
        assert _age(tailer.find(_WANTED)) < _SLACK

    @pytest.mark.parametrize("change", ["", "{", "[]", "null", '{"last": []}', None])
    def test_one_that_is_of_no_use_is_ignored(
        self, written: WrittenLog, log: MessageLog, last: LogTailer, change: str | None
    ) -> None:
        written.write("loja", age_seconds=600)
        last.poll(_WANTED)
        checkpoint = last.checkpoint() if change is None else change
        # With a longer look back than before, what was read is not enough.
        lookback = _WEEK * 2 if change is None else _WEEK
        view = self._next(log, checkpoint, lookback).find(_WANTED)
        assert view.rows_read == 1
        assert 600 <= _age(view) < 600 + _SLACK

    def test_it_holds_no_more_than_keys_ids_and_times(
        self, written: WrittenLog, last: LogTailer
    ) -> None:
        assert last.checkpoint() == "", "there is none before the first poll"
        written.write("loja", words="a secret")
        last.poll(_WANTED)
        kept = json.loads(last.checkpoint())
        assert kept["last"].keys() == {"loja"}
        assert "secret" not in json.dumps(kept)


_OWN: list[tuple[str, dict[str, Any], bool]] = [
    ("onselfmessage", {"ack": 0}, False),
    ("onselfmessage", {"ack": -1}, False),
    ("onselfmessage", {"ack": "PENDING"}, False),
    ("onselfmessage", {"ack": 1}, True),
    ("onselfmessage", {"ack": 3}, True),
    ("onselfmessage", {}, True),
    ("onselfmessage", {"data": {"ack": 0}}, False),
    ("onselfmessage", {"raw": {"payload": {"ack": 0}}}, False),
    ("message", {"fromMe": True, "ack": 0}, False),
    ("message", {"message": {"fromMe": True, "ack": 0}}, False),
    ("message", {"fromMe": True, "ack": 2}, True),
    # What others have sent has come, whatever its ack is; what is quoted is another message.
    ("message", {"fromMe": False, "ack": 0}, True),
    ("message", {"ack": 0, "quotedMsg": {"fromMe": True}}, True),
    ("message.sent", {"ack": 2}, False),
]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_an_own_message_is_heard_once_whatsapp_has_taken_it(
    written: WrittenLog, log: MessageLog, separators: tuple[str, str]
) -> None:
    for event_type, fields, _ in _OWN:
        payload = json.dumps({"sessionId": "loja"} | fields, separators=separators)
        written.write(event_type=event_type, payload=payload)
    rows = log.rows_after(0, 100)
    assert {row.key for row in rows} == {"loja"}
    assert [row.heard for row in rows] == [heard for _, _, heard in _OWN]


def test_an_echo_to_oneself_is_heard_as_soon_as_it_is_reported(
    written: WrittenLog, log: MessageLog
) -> None:
    token = make_token("loja")
    written.write(
        event_type="onselfmessage",
        payload={"sessionId": "loja", "fromMe": True, "ack": 0, "body": token},
    )
    (row,) = log.rows_after(0, 10)
    assert (row.key, row.heard, row.echo) == ("loja", True, token)


def test_undecryptable_messages_are_counted_apart(written: WrittenLog, last: LogTailer) -> None:
    written.write("obra")
    last.poll(_WANTED)
    fields: list[dict[str, Any]] = [
        {"type": "ciphertext"},
        {"message": {"type": "ciphertext"}},
        {"data": {"type": "ciphertext"}},
        {"raw": {"payload": {"type": "ciphertext"}}},
    ]
    for one in fields:
        written.write(payload={"sessionId": "loja"} | one)
    written.write("obra", words='the "ciphertext"')
    view = last.poll(_WANTED)
    assert view.undecryptable == {"loja": 4}
    assert view.age("loja") is None
    assert view.messages == {("obra", Direction.IN): 1}
    # The same one, decrypted a moment later.
    written.write(payload={"sessionId": "loja"})
    assert _age(last.poll(_WANTED)) < _SLACK


def test_rows_of_messages_that_name_no_channel_are_counted(
    written: WrittenLog, last: LogTailer
) -> None:
    written.write(payload={"session": "loja"})
    written.write(payload="no JSON")
    written.write(payload={"instance": "loja"}, event_type="presence.update")
    assert last.poll(_WANTED).unnamed == 2
    written.write(payload={"instance": "loja"})
    written.write("loja")
    assert last.poll(_WANTED).unnamed == 3
