"""The newest message of each channel, poll after poll, on a real MariaDB and on SQLite."""

from __future__ import annotations

import random
import re
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.simulator.schema import insert_message
from tests.support.clock import HandMovedClock
from tests.support.examples import examples
from tests.support.mariadb import MariaDb
from tests.support.message_logs import WrittenLog, on_sqlite
from zapwatch.clock import Clock
from zapwatch.messages import log_tailer
from zapwatch.messages.log_tailer import LogTailer
from zapwatch.messages.message import ActivitySnapshot, Direction, MessageLogError, make_token
from zapwatch.messages.source import LogMessages
from zapwatch.messages.webhook_log import Head, MessageLog, Row

_WEEK = 7 * 24 * 3600.0
_SLACK = 60  # seconds that a busy machine may take between writing and polling


class _Polled:
    """A LogTailer at work on a log, and what it asks of it."""

    def __init__(
        self, written: WrittenLog, lookback_seconds: float = _WEEK, clock: Clock | None = None
    ) -> None:
        self.log = _NotedLog(written.reader)
        self.last = LogTailer(self.log, lookback_seconds, clock=clock)

    def poll(self, *wanted: str) -> ActivitySnapshot:
        return self.last.poll(wanted or ("loja", "obra"))


class _NotedLog(MessageLog):
    """Notes how many rows each statement may bring, and fails or is slow where told so."""

    def __init__(self, url: sa.URL) -> None:
        super().__init__(url)
        self.limits: list[int] = []
        self.failures = 0
        self.clock: HandMovedClock | None = None
        self.seconds_per_row = 0.0
        self.most_rows = 1_000_000
        self.fails_at = 0
        """The number of the one statement that fails."""

    def rows_after(self, row_id: int, limit: int) -> list[Row]:
        self._read_chunk(limit)
        return super().rows_after(row_id, limit)

    def rows_before(self, row_id: int, limit: int) -> list[Row]:
        self._read_chunk(limit)
        return super().rows_before(row_id, limit)

    def rows_among(self, ids: Collection[int], limit: int) -> list[Row]:
        self._read_chunk(limit)
        return super().rows_among(ids, limit)

    def _read_chunk(self, limit: int) -> None:
        self.limits.append(limit)
        if self.clock is not None:
            self.clock.forward(self.seconds_per_row * limit)
        if self.failures or limit > self.most_rows or len(self.limits) == self.fails_at:
            self.failures = max(0, self.failures - 1)
            raise MessageLogError("gone away")


@pytest.fixture
def polled(written: WrittenLog, clock: HandMovedClock) -> Iterator[_Polled]:
    at_work = _Polled(written, clock=clock)
    yield at_work
    at_work.log.close()


@pytest.fixture
def on_mariadb(mariadb_log: WrittenLog) -> Iterator[_Polled]:
    at_work = _Polled(mariadb_log)
    yield at_work
    at_work.log.close()


@pytest.fixture
def clock() -> HandMovedClock:
    return HandMovedClock()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tailer, "_CHUNK", 10)
    monkeypatch.setattr(log_tailer, "_CHUNK_MOST", 10)


def _age(view: ActivitySnapshot, key: str) -> float:
    age = view.age(key)
    assert age is not None
    return age


def test_a_channel_without_messages_has_no_age_and_is_looked_for_once(
    written: WrittenLog, polled: _Polled
) -> None:
    written.write("loja", event_type="presence.update")
    written.write(payload='{"sessionId": "loja"')

    view = polled.poll("loja")

    assert view.age("loja") is None
    assert not polled.last.looking_back(["loja"])
    assert polled.poll("loja").rows_read == view.rows_read == 2


def test_new_messages_are_counted_by_channel_and_direction(
    written: WrittenLog, polled: _Polled
) -> None:
    written.write("loja")
    polled.poll()

    written.write("loja", event_type="onmessage")
    written.write("loja", event_type="message.sent")
    written.write("obra", event_type="onselfmessage")
    written.write("obra", event_type="connection.update")
    written.write("unlisted")
    polled.poll()
    written.write("loja")
    view = polled.poll()

    assert view.messages == {
        ("loja", Direction.IN): 2,
        ("loja", Direction.OUT): 1,
        ("obra", Direction.OUT): 1,
        ("unlisted", Direction.IN): 1,
    }


def test_what_a_panel_sends_does_not_hide_that_nothing_is_heard(
    written: WrittenLog, polled: _Polled
) -> None:
    written.write("loja", age_seconds=7200)
    written.write("obra", event_type="message.sent", age_seconds=7000)
    written.write("loja", event_type="message.sent", age_seconds=60)
    polled.poll()
    written.write("loja", event_type="message.sent")
    view = polled.poll()

    assert _age(view, "loja") < _SLACK
    assert 7200 <= (view.heard_age("loja") or 0) < 7200 + _SLACK
    assert _age(view, "obra") >= 7000
    assert view.heard_age("obra") is None

    written.write("loja", event_type="onselfmessage")
    heard = polled.poll().heard_age("loja")
    assert heard is not None
    assert heard < _SLACK


def test_an_echo_moves_the_clocks_of_who_got_it_and_is_no_traffic(
    written: WrittenLog, polled: _Polled
) -> None:
    for channel in ("loja", "obra"):
        written.write(channel, age_seconds=7200)
    polled.poll()
    token = make_token("loja")
    written.write("obra", event_type="message.sent", outgoing=True, words=token)
    written.write("obra", event_type="message", outgoing=True, words=token)
    written.write("loja", event_type="onmessage", words=token)
    view = polled.poll()

    assert _age(view, "loja") < _SLACK
    heard = view.heard_age("loja")
    assert heard is not None
    assert heard < _SLACK
    assert _age(view, "obra") >= 7200
    assert (view.heard_age("obra") or 0) >= 7200
    assert view.messages == {}


@pytest.mark.usefixtures("small_chunks")
def test_the_first_look_ends_where_each_channel_was_heard(
    written: WrittenLog, polled: _Polled
) -> None:
    written.write_many(["noise"] * 100)
    written.write("obra")
    written.write_many(["noise"] * 15)
    written.write("loja")

    assert polled.poll().rows_read == 20
    assert not polled.last.looking_back(["loja", "obra"])


@pytest.mark.usefixtures("small_chunks")
def test_a_channel_that_is_listed_later_is_looked_for_where_the_first_look_ended(
    written: WrittenLog, polled: _Polled
) -> None:
    written.write("obra", age_seconds=500)
    written.write_many(["noise"] * 25)
    written.write("loja")
    assert polled.poll("loja").rows_read == 10

    view = polled.poll("loja", "obra")

    assert _age(view, "obra") >= 500
    assert view.rows_read == 27


@pytest.mark.usefixtures("small_chunks")
def test_the_first_look_goes_no_further_back_than_it_was_told(written: WrittenLog) -> None:
    written.write_many(["loja"] * 50, age_seconds=7200)
    written.write_many(["noise"] * 25, age_seconds=10)
    polled = _Polled(written, lookback_seconds=3600)

    view = polled.poll("missing")
    polled.log.close()

    assert view.rows_read == 40, "two pieces of new rows, one on the border, one of old rows"
    assert not polled.last.looking_back(["missing"])


@pytest.mark.usefixtures("small_chunks")
def test_a_long_look_back_does_not_keep_new_messages_waiting(
    written: WrittenLog, polled: _Polled, clock: HandMovedClock
) -> None:
    written.write("obra", age_seconds=5000)
    written.write_many(["noise"] * 60)
    polled.log.clock, polled.log.seconds_per_row = clock, 0.02

    polls = 0
    while polled.last.looking_back(["obra"]) or not polls:
        written.write("loja")
        assert _age(polled.poll("obra"), "loja") < _SLACK
        polls += 1

    assert polls > 1
    assert _age(polled.poll("obra"), "obra") >= 5000


@pytest.mark.parametrize("at", [None, "2099-01-01 00:00:00", "9999-12-31 23:59:59"])
def test_a_new_row_from_the_future_was_written_now_and_ages_from_then(
    written: WrittenLog, polled: _Polled, at: str | None
) -> None:
    written.write("obra")
    polled.poll()
    row = written.write("loja")
    if at is None:
        written.postdate(row, 86400)
    else:
        written.received(row, at)

    heard = polled.poll()
    later = polled.poll()

    assert heard.last_message["loja"] == heard.now
    assert later.last_message["loja"] == heard.now
    assert later.messages == {("loja", Direction.IN): 1}


def test_an_old_row_from_the_future_proves_nothing_but_a_corrected_clock_is_allowed_for(
    written: WrittenLog, polled: _Polled
) -> None:
    written.write("loja", age_seconds=5000)
    written.postdate(written.write("loja"), 86400)
    written.postdate(written.write("obra"), 120)

    view = polled.poll()

    assert _age(view, "loja") >= 5000
    assert view.last_message["obra"] == view.now


def test_a_row_that_appears_below_what_was_read_is_heard_for_a_minute(
    written: WrittenLog, polled: _Polled, clock: HandMovedClock
) -> None:
    written.write_as(10, "noise")
    polled.poll()
    written.write_as(20, "noise")
    polled.poll()
    clock.forward(55)
    written.write_as(15, "loja")
    in_time = polled.poll()
    clock.forward(65)
    polled.poll()
    written.write_as(14, "obra")
    too_late = polled.poll()

    assert in_time.messages[("loja", Direction.IN)] == 1
    assert too_late.age("obra") is None


@pytest.mark.parametrize("fails", [False, True], ids=["a long pause", "an outage"])
def test_a_late_row_is_heard_after(
    written: WrittenLog, polled: _Polled, clock: HandMovedClock, fails: bool
) -> None:
    for row in (10, 12):
        written.write_as(row, "noise")
        polled.poll()
    written.write_as(11, "loja")
    clock.forward(120)
    if fails:
        written.run("ALTER TABLE webhook_raw_logs RENAME TO renamed")
        with pytest.raises(MessageLogError):
            polled.poll()
        clock.forward(120)
        written.run("ALTER TABLE renamed RENAME TO webhook_raw_logs")
    assert polled.poll().messages[("loja", Direction.IN)] == 1


def test_a_late_row_that_is_purged_before_it_is_read_does_no_harm(
    written: WrittenLog, polled: _Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in (10, 20):
        written.write_as(row, "noise")
        polled.poll()
    written.write_as(15, "loja")
    ids_between = polled.log.ids_between

    def purge_after(*given: int) -> list[int]:
        ids = ids_between(*given)
        written.purge(up_to=15)
        return ids

    monkeypatch.setattr(polled.log, "ids_between", purge_after)
    assert polled.poll().age("loja") is None


def test_late_rows_are_looked_for_among_the_newest_of_a_large_log(
    written: WrittenLog, polled: _Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_tailer, "_CHUNK", 10)
    monkeypatch.setattr(log_tailer, "_OVERLAP_ROWS", 20)
    for row in range(2, 82, 2):
        written.write_as(row, "noise")
    polled.poll()

    written.write_as(63, "loja")
    first = polled.poll()
    # Twelve more: with the ten of the first poll and the late one, too many to remember.
    for row in range(82, 106, 2):
        written.write_as(row, "noise")
    polled.poll()
    written.write_as(77, "obra")
    second = polled.poll()

    assert first.messages == {("loja", Direction.IN): 1}
    assert second.messages[("obra", Direction.IN)] == 1
    assert second.messages[("noise", Direction.IN)] == 12


def test_late_rows_in_place_of_as_many_that_were_purged_are_heard(
    written: WrittenLog, polled: _Polled
) -> None:
    polled.poll()
    for row in (2, 5, 9):
        written.write_as(row, "noise")
    polled.poll()
    # As many ids as before, with the same sum.
    written.purge(up_to=5)
    written.write_as(3, "loja")
    written.write_as(4, "obra")

    view = polled.poll()

    assert view.messages == {
        ("noise", Direction.IN): 3,
        ("loja", Direction.IN): 1,
        ("obra", Direction.IN): 1,
    }


def test_a_purge_of_all_rows_forgets_no_age_and_misses_no_new_message(
    written: WrittenLog, polled: _Polled
) -> None:
    written.write("obra", age_seconds=500)
    before = polled.poll()
    written.purge()
    emptied = polled.poll()
    written.write("loja")
    view = polled.poll()

    assert emptied.last_message == before.last_message
    assert _age(view, "obra") >= 500
    assert _age(view, "loja") < _SLACK
    assert view.messages == {("loja", Direction.IN): 1}
    assert polled.poll().rows_read == view.rows_read


def test_a_purge_that_takes_the_last_row_read_misses_no_new_message(
    written: WrittenLog, polled: _Polled
) -> None:
    row = written.write("obra", age_seconds=500)
    polled.poll()
    written.write("loja")
    written.purge(up_to=row)

    view = polled.poll()

    assert _age(view, "loja") < _SLACK
    assert view.messages == {("loja", Direction.IN): 1}
    assert polled.poll().rows_read == view.rows_read == 2


@pytest.mark.parametrize("emptied", ["truncate", "replace"])
def test_messages_after_ids_have_started_again_are_heard(
    written: WrittenLog, polled: _Polled, emptied: str
) -> None:
    written.write_many(["loja", "obra", *["noise"] * 3], age_seconds=100)
    polled.poll()
    getattr(written, emptied)()
    assert written.write("loja") == 1

    assert _age(polled.poll(), "loja") < _SLACK
    written.write("obra")
    view = polled.poll()

    assert view.messages == {("obra", Direction.IN): 1}
    assert polled.poll().rows_read == view.rows_read


@pytest.mark.parametrize("has_gap", [True, False])
@pytest.mark.parametrize("emptied", ["truncate", "replace"])
@pytest.mark.parametrize("polls", [1, 2])
def test_ids_that_started_again_and_grew_past_the_last_one_read_are_noticed(
    written: WrittenLog, polled: _Polled, emptied: str, polls: int, *, has_gap: bool
) -> None:
    written.write_many(["loja", "obra", *["noise"] * 3], age_seconds=100)
    for _ in range(polls):
        polled.poll()
    getattr(written, emptied)()
    written.write("loja")
    if has_gap:
        written.write_as(9, "noise")
    else:
        written.write_many(["noise"] * 20)

    assert _age(polled.poll(), "loja") < _SLACK


def test_late_rows_are_heard_under_ids_that_were_read_before_they_started_again(
    written: WrittenLog, polled: _Polled
) -> None:
    written.write_many(["noise"] * 9, age_seconds=100)
    polled.poll()
    written.truncate()
    written.write("noise")
    polled.poll()
    written.write_as(6, "noise")
    polled.poll()
    written.write_as(5, "loja")

    assert polled.poll().messages[("loja", Direction.IN)] == 1


def test_ids_that_start_again_after_a_purge_are_noticed(
    written: WrittenLog, polled: _Polled
) -> None:
    written.write_many(["loja", "obra", *["noise"] * 3], age_seconds=100)
    polled.poll()
    written.write_as(6, "noise", age_seconds=90)
    written.purge(up_to=5)
    polled.poll()
    written.truncate()
    written.write("loja")
    written.write_many(["noise"] * 20)

    assert _age(polled.poll(), "loja") < _SLACK


@pytest.mark.parametrize("past_the_last", [False, True])
def test_a_failure_amid_the_look_at_a_restarted_log_is_made_up_for(
    written: WrittenLog, polled: _Polled, past_the_last: bool
) -> None:
    written.write_many(["loja", "obra", *["noise"] * 3], age_seconds=100)
    polled.poll()
    written.truncate()
    written.write("loja")
    if past_the_last:
        written.write_as(9, "noise")
    polled.log.failures = 3

    for _ in range(3):
        with pytest.raises(MessageLogError):
            polled.poll()

    assert _age(polled.poll(), "loja") < _SLACK


@pytest.mark.usefixtures("small_chunks")
def test_a_failure_amid_new_rows_loses_and_doubles_none(
    written: WrittenLog, polled: _Polled
) -> None:
    polled.poll()
    written.write_many(["loja"] * 25)
    polled.log.fails_at = len(polled.log.limits) + 3
    with pytest.raises(MessageLogError):
        polled.poll()

    assert polled.poll().messages == {("loja", Direction.IN): 25}


def test_a_backlog_is_caught_up_with_in_pieces(
    written: WrittenLog, polled: _Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_tailer, "_CHUNK_MOST", 30)
    monkeypatch.setattr(log_tailer, "_OVERLAP_ROWS", 50)
    polled.poll()
    polled.last._chunk = 10
    polled.log.limits.clear()
    written.write_many(["loja"] * 200)

    view = polled.poll()

    assert view.messages == {("loja", Direction.IN): 200}
    assert view.rows_read == 200
    assert polled.log.limits[:4] == [10, 20, 30, 30]
    assert len(polled.last._recent) <= 50, "the memory does not grow with the backlog"


def test_pieces_become_smaller_where_rows_are_slow_and_larger_again(
    written: WrittenLog, polled: _Polled, clock: HandMovedClock
) -> None:
    polled.poll()
    polled.last._chunk = 100
    polled.log.limits.clear()
    written.write_many(["loja"] * 150)
    polled.log.clock, polled.log.seconds_per_row = clock, 0.008
    polled.poll()
    slow = polled.log.limits.copy()
    polled.log.seconds_per_row = 0.0
    written.write_many(["loja"] * 70)
    polled.poll()

    assert slow == [100, 25, 25]
    assert polled.log.limits == [*slow, 25, 50]


def test_rows_so_large_that_a_piece_of_them_times_out_are_read_one_by_one_in_the_end(
    written: WrittenLog, polled: _Polled, clock: HandMovedClock
) -> None:
    polled.poll()
    written.write_many(["loja"] * 5)
    polled.log.clock, polled.log.seconds_per_row, polled.log.most_rows = clock, 5.0, 1

    unread: list[int] = []
    while 0 not in unread:
        try:
            view = polled.poll()
        except MessageLogError:
            assert not unread, "no piece is too large any more"
        else:
            unread.append(view.unread)

    assert unread == [4, 3, 2, 1, 0]
    assert view.messages == {("loja", Direction.IN): 5}


def test_a_lost_connection_is_made_anew(
    mariadb: MariaDb, mariadb_log: WrittenLog, on_mariadb: _Polled
) -> None:
    on_mariadb.poll()
    mariadb.disconnect(mariadb_log.reader.username)
    mariadb_log.write("loja")

    assert on_mariadb.poll().messages == {("loja", Direction.IN): 1}


def test_ages_stay_right_when_the_zone_of_the_server_changes(
    mariadb: MariaDb, mariadb_log: WrittenLog, on_mariadb: _Polled
) -> None:
    mariadb.execute("SET GLOBAL time_zone = 'America/Sao_Paulo'")
    try:
        mariadb_log.write("loja", age_seconds=300)
        before = on_mariadb.poll()
        on_mariadb.log.close()
        mariadb.execute("SET GLOBAL time_zone = '+09:00'")
        mariadb_log.write("obra")
        after = on_mariadb.poll()
    finally:
        mariadb.execute("SET GLOBAL time_zone = 'SYSTEM'")

    assert 300 <= _age(before, "loja") < 300 + _SLACK
    assert 300 <= _age(after, "loja") < 300 + _SLACK
    assert _age(after, "obra") < _SLACK


def test_payloads_that_name_ever_new_channels_do_not_fill_the_memory(
    written: WrittenLog, polled: _Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_tailer, "_MOST_CHANNELS", 50)
    polled.poll("loja")
    written.write_many(["loja", *(f"made-up-{number}" for number in range(60))])

    view = polled.poll("loja")

    assert set(view.last_message) == {"loja"}
    assert view.messages == {("loja", Direction.IN): 1}


def _rows_touched(written: WrittenLog) -> int:
    with written.engine.connect() as connection:
        counters = connection.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Handler_read%%'").all()
    return sum(int(value) for _, value in counters)


def test_a_poll_touches_no_more_rows_than_are_new_however_many_there_are(
    mariadb_log: WrittenLog, on_mariadb: _Polled
) -> None:
    mariadb_log.write_noise(20_000)
    mariadb_log.write_many([*["obra"] * 1000, "loja"])

    def touched(new: int = 0) -> int:
        if new:
            mariadb_log.write_many(["obra"] * new)
        # MySQL counts what it reads to show these counters.
        idle, before = _rows_touched(mariadb_log), _rows_touched(mariadb_log)
        on_mariadb.poll("loja")
        return _rows_touched(mariadb_log) - before - (before - idle)

    # The first poll reads a piece of rows, and the ids of as many.
    assert touched() <= 2 * 1000 + 50
    assert touched() <= 50
    assert touched(new=50) <= 50 + 50
    assert touched() <= 50

    # Where ids are missing, later polls look whether they are there, and what stands between them.
    with mariadb_log.engine.connect() as connection:
        insert_message(connection, "obra")
        mariadb_log.write_many(["obra"] * 100)
        insert_message(connection, "obra")
        connection.rollback()
    assert touched(new=50) <= 150 + 100
    assert 100 <= touched() <= 100 + 100


def test_every_statement_goes_by_a_range_of_the_primary_key(
    mariadb: MariaDb, mariadb_log: WrittenLog, on_mariadb: _Polled
) -> None:
    mariadb_log.write_noise(20_000)
    mariadb.execute(
        f"ANALYZE TABLE {mariadb_log.reader.database}.webhook_raw_logs",
        "TRUNCATE mysql.general_log",
        "SET GLOBAL log_output = 'TABLE'",
        "SET GLOBAL general_log = ON",
    )
    try:
        on_mariadb.poll("missing")
        for row in (30_000, 29_999):
            mariadb_log.write_as(row, "loja")
            on_mariadb.poll("missing")
    finally:
        mariadb.execute("SET GLOBAL general_log = OFF", "SET GLOBAL log_output = 'FILE'")
    with mariadb_log.engine.connect() as connection:
        logged = connection.execute(
            sa.text(
                "SELECT argument FROM mysql.general_log WHERE command_type = 'Query'"
                " AND user_host LIKE :user AND argument LIKE '%webhook_raw_logs%'"
            ),
            {"user": f"{mariadb_log.reader.username}[%"},
        ).scalars()
        statements = {_text(argument) for argument in logged}
        # Of one kind each: ids, counts and pieces differ.
        kinds = {re.sub(r"\d+", "N", one): one for one in statements}
        plans = {
            kind: [
                dict(step)
                for step in connection.exec_driver_sql(
                    "EXPLAIN FORMAT=TRADITIONAL " + one.replace("%", "%%")
                ).mappings()
            ]
            for kind, one in kinds.items()
        }

    assert len(plans) >= 5, "head, rows after, before, of, and ids"
    for kind, steps in plans.items():
        for step in steps:
            if step["table"] == "entry":  # of one payload, for a large row of Whapi's
                continue
            by_key = step["key"] == "PRIMARY" and step["type"] in {"range", "const", "eq_ref"}
            # MAX(id) needs no table; a row that is not there is known before the plan is made.
            needs_none = step["table"] is None
            assert by_key or needs_none, (kind, step)
            assert "filesort" not in (step["Extra"] or ""), (kind, step)
            assert "temporary" not in (step["Extra"] or ""), (kind, step)


def _text(argument: Any) -> str:
    return argument.decode() if isinstance(argument, bytes) else str(argument)


_CHANNELS = ("loja", "obra", "casa")
_KINDS = ["write"] * 3 + ["reserve", "late"] * 2 + ["poll"] * 4 + ["purge", "purge all"]
_STEPS = st.lists(
    st.tuples(st.sampled_from(_KINDS), st.sampled_from([*_CHANNELS, ""]), st.integers(0, 40)),
    min_size=10,
    max_size=40,
)


class _Model:
    """The plain truth: every row that was there at a poll has been heard and counted."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._now = int(time.time())
        self._next_id = 1
        self._reserved: list[int] = []
        self._seen: set[int] = set()
        self.emptied = False
        self.started = False
        self.last: dict[str, float] = {}
        self.counted: Counter[tuple[str, Direction]] = Counter()

    def take(self, what: str, channel: str, number: int) -> None:
        if what == "write":
            self.write(self._new_id(), channel, number)
        elif what == "reserve":
            self._reserved.append(self._new_id())
        elif what == "late" and self._reserved:
            self.write(self._reserved.pop(0), channel, number)
        elif what == "purge":
            self._connection.execute(
                "DELETE FROM webhook_raw_logs WHERE id IN"
                " (SELECT id FROM webhook_raw_logs ORDER BY id LIMIT ?)",
                (number // 5,),
            )
        elif what == "purge all":
            self._connection.execute("DELETE FROM webhook_raw_logs")

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def write(self, row_id: int, channel: str, age: int) -> None:
        self._connection.execute(
            "INSERT INTO webhook_raw_logs (id, received_at, event_type, payload_json)"
            " VALUES (?, datetime(?, 'unixepoch'), ?, json_object('sessionId', ?))",
            (row_id, self._now - age, "message" if row_id % 2 else "message.sent", channel),
        )

    def poll(self) -> None:
        found = self._connection.execute(
            "SELECT id, CAST(strftime('%s', received_at) AS INTEGER), event_type,"
            " json_extract(payload_json, '$.sessionId') FROM webhook_raw_logs"
        ).fetchall()
        self.emptied |= self.started and not found
        self.emptied |= (
            bool(self._seen) and bool(found) and max(self._seen) not in {row[0] for row in found}
        )
        for row_id, at, event, channel in found:
            if channel:
                self.last[channel] = max(self.last.get(channel, 0.0), float(at))
                if self.started and row_id not in self._seen:
                    direction = Direction.IN if event == "message" else Direction.OUT
                    self.counted[channel, direction] += 1
            self._seen.add(row_id)
        self.started = True

    def close(self) -> None:
        self._connection.close()


@settings(max_examples=examples(60))
@given(before=st.lists(st.sampled_from([*_CHANNELS, ""]), max_size=12), steps=_STEPS)
def test_whatever_is_written_and_purged_between_polls_is_heard_and_counted_as_it_truly_was(
    before: list[str], steps: list[tuple[str, str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder, on_sqlite(Path(folder)) as written:
        model = _Model(str(written.reader.database))
        polled = _Polled(written)
        for position, channel in enumerate(before):
            model.take("write", channel, 1000 - position)
        for what, channel, number in [*steps, ("poll", "", 0)]:
            model.take(what, channel, number)
            if what == "poll":
                view = polled.poll(*_CHANNELS)
                model.poll()
                heard = {k: v for k, v in view.last_message.items() if k in _CHANNELS}
                assert heard == model.last
                if not model.emptied:
                    assert view.messages == model.counted
        polled.log.close()
        model.close()


def test_many_writers_and_one_reader_agree_in_the_end(
    mariadb_log: WrittenLog, on_mariadb: _Polled
) -> None:
    on_mariadb.poll()
    chance = random.Random(7)
    connections = [mariadb_log.engine.connect() for _ in range(6)]
    expected: Counter[tuple[str, Direction]] = Counter()
    pending: Counter[int] = Counter()
    for _ in range(200):
        number = chance.randrange(len(connections))
        insert_message(connections[number], "loja")
        pending[number] += 1
        if chance.random() < 0.3:
            if chance.random() < 0.7:
                connections[number].commit()
                expected["loja", Direction.IN] += pending[number]
            else:
                connections[number].rollback()
            pending[number] = 0
        if chance.random() < 0.3:
            on_mariadb.poll()
    for connection in connections:
        connection.close()

    view = on_mariadb.poll()

    assert view.messages == expected
    assert view.rows_read == expected.total()


class Canned:
    """A log whose clock and times have whole seconds, as databases have them."""

    def __init__(self, now: float, *times: float | None) -> None:
        self._now = now
        self._rows = [
            Row(number, at, "loja", Direction.IN) for number, at in enumerate(times, start=1)
        ]

    def head(self, _known: int) -> Head:
        return Head(self._now, len(self._rows), None)

    def rows_before(self, row_id: int, limit: int) -> list[Row]:
        return [row for row in self._rows[::-1] if row.id < row_id][:limit]


@pytest.mark.parametrize(
    ("times", "heard"),
    [((), False), ((100,), False), ((102,), True), ((102, None), True), ((None,), False)],
)
def test_the_log_is_read_back_as_far_as_it_was_asked(
    times: tuple[float | None, ...], *, heard: bool
) -> None:
    log: Any = Canned(105, *times)
    assert LogMessages(log, 86_400.0).recent(4).ages.keys() == ({"loja"} if heard else set())
