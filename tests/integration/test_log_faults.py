"""Ages stay right whatever happens to the database, its clock and its table."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from demo.simulator.schema import create_message_log, insert_message
from tests.support.clock import AheadClock
from tests.support.mariadb import MYSQLD, MariaDb
from tests.support.memory import least_peak
from tests.support.message_logs import WrittenLog
from tests.support.waiting import wait_until
from zapwatch.messages import log_tailer, webhook_log
from zapwatch.messages.log_tailer import LogTailer
from zapwatch.messages.message import ActivitySnapshot, Direction, MessageLogError
from zapwatch.messages.webhook_log import MessageLog

_WEEK = 7 * 24 * 3600.0
_SLACK = 60  # seconds that a busy machine may take between writing and polling
_NEW_YORK = "America/New_York"
_AUTUMN = "2018-11-04"  # when New York had the hour from 01:00 twice


class _Reader:
    """A LogTailer on a log, which reads as if it were some other moment where told so."""

    def __init__(self, server: MariaDb, written: WrittenLog) -> None:
        self._server = server
        self.clock = AheadClock()
        self._log = MessageLog(written.reader, clock=self.clock)
        self.last = LogTailer(self._log, _WEEK, clock=self.clock)

    def poll(self, *wanted: str) -> ActivitySnapshot:
        return self.last.poll(wanted or ("loja", "obra"))

    def poll_at(
        self, local: str, zone: str, *, fold: int = 0, after: float = 0.0
    ) -> ActivitySnapshot:
        """Poll when the database's clock says ``local``, for the second time if fold is 1.

        Some minutes have passed ``after`` the poll before.
        """
        self.clock.ahead += after * 60
        moment = dt.datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zone), fold=fold)
        # What a reader without rights executes when it connects.
        self._server.execute(f"SET GLOBAL init_connect = 'SET timestamp = {moment.timestamp()}'")
        self._log.close()
        try:
            return self.poll()
        finally:
            self._server.execute("SET GLOBAL init_connect = ''")

    def close(self) -> None:
        self._log.close()


@pytest.fixture
def reader(mariadb: MariaDb, mariadb_log: WrittenLog) -> Iterator[_Reader]:
    made = _Reader(mariadb, mariadb_log)
    yield made
    made.close()


@pytest.fixture
def in_new_york(mariadb: MariaDb) -> Iterator[None]:
    mariadb.execute(f"SET GLOBAL time_zone = '{_NEW_YORK}'")
    yield
    mariadb.execute("SET GLOBAL time_zone = 'SYSTEM'")


def _received(written: WrittenLog, channel: str, at: str) -> None:
    written.received(written.write(channel), at)


def _minutes(view: ActivitySnapshot, key: str) -> float:
    age = view.age(key)
    assert age is not None
    assert view.heard_age(key) == age
    return age / 60


@pytest.mark.usefixtures("in_new_york")
def test_the_first_look_tells_the_two_passes_of_the_repeated_hour_apart(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    rows = {"before": "00:50", "first": "01:05", "last": "01:50", "again": "01:02", "loja": "01:06"}
    for channel, local in rows.items():
        _received(mariadb_log, channel, f"{_AUTUMN} {local}")

    view = reader.poll_at(f"{_AUTUMN} 01:10", _NEW_YORK, fold=1)

    ages = {"before": 80, "first": 65, "last": 20, "again": 8, "loja": 4}
    assert {channel: _minutes(view, channel) for channel in ages} == ages


@pytest.mark.usefixtures("in_new_york", "small_chunks")
def test_it_tells_them_apart_over_pieces_and_a_day_later(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    for channel, local in [("loja", "01:20"), ("noise", "01:40"), ("obra", "01:10")]:
        _received(mariadb_log, channel, f"{_AUTUMN} {local}")

    view = reader.poll_at("2018-11-05 01:00", _NEW_YORK)

    assert _minutes(view, "obra") == 24 * 60 - 10
    assert _minutes(view, "loja") == 25 * 60 - 20


@pytest.mark.usefixtures("in_new_york")
def test_polls_before_in_and_after_the_repeated_hour_see_ages_grow_evenly(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    _received(mariadb_log, "loja", f"{_AUTUMN} 00:40")
    assert _minutes(reader.poll_at(f"{_AUTUMN} 00:50", _NEW_YORK), "loja") == 10
    _received(mariadb_log, "obra", f"{_AUTUMN} 01:30")
    seen = []
    for local, fold, after in [
        *(("01:30", 0, 40), ("01:59", 0, 29)),
        *(("01:00", 1, 1), ("01:40", 1, 40), ("02:30", 0, 50)),
    ]:
        view = reader.poll_at(f"{_AUTUMN} {local}", _NEW_YORK, fold=fold, after=after)
        seen.append((_minutes(view, "loja"), _minutes(view, "obra")))
    _received(mariadb_log, "obra", f"{_AUTUMN} 02:35")
    view = reader.poll_at(f"{_AUTUMN} 02:40", _NEW_YORK, after=10)

    assert seen == [(50, 0), (79, 29), (80, 30), (120, 70), (170, 120)]
    assert (_minutes(view, "loja"), _minutes(view, "obra")) == (180, 5)


@pytest.mark.usefixtures("in_new_york")
def test_a_message_in_the_second_pass_is_heard_as_new(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    reader.poll_at(f"{_AUTUMN} 01:05", _NEW_YORK, fold=1)
    _received(mariadb_log, "loja", f"{_AUTUMN} 01:10")

    later = reader.poll_at(f"{_AUTUMN} 01:11", _NEW_YORK, fold=1, after=6)
    assert _minutes(later, "loja") == 1


@pytest.mark.usefixtures("in_new_york")
def test_the_hour_that_spring_leaves_out_makes_no_age_too_old(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    _received(mariadb_log, "loja", "2018-03-11 01:50")

    assert _minutes(reader.poll_at("2018-03-11 03:10", _NEW_YORK), "loja") == 20


def test_a_database_clock_that_is_ahead_makes_no_difference_to_ages(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    _received(mariadb_log, "loja", "2026-02-09 08:00:00")
    view = reader.poll_at("2026-02-09 08:10:00", "UTC")
    _received(mariadb_log, "obra", "2026-02-09 08:10:30")
    later = reader.poll_at("2026-02-09 08:11:00", "UTC")

    assert _minutes(view, "loja") == 10
    assert (_minutes(later, "loja"), _minutes(later, "obra")) == (11, 0.5)


def test_a_database_clock_that_is_put_back_hides_no_silence(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    _received(mariadb_log, "loja", "2026-02-09 08:00:00")
    _received(mariadb_log, "obra", "2026-02-08 23:00:00")
    reader.poll_at("2026-02-09 08:01:00", "UTC")
    put_back = reader.poll_at("2026-02-09 00:00:00", "UTC")
    reader.clock.ahead = 4.5 * 3600
    later = reader.poll_at("2026-02-09 04:30:00", "UTC")

    assert (_minutes(put_back, "loja"), _minutes(put_back, "obra")) == (0, 60)
    assert (_minutes(later, "loja"), _minutes(later, "obra")) == (270, 330)


def test_a_database_clock_that_is_put_back_and_corrected_makes_nothing_old(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    _received(mariadb_log, "loja", "2026-02-09 08:00:00")
    reader.poll_at("2026-02-09 08:10:00", "UTC")
    put_back = reader.poll_at("2026-02-09 03:10:20", "UTC")
    _received(mariadb_log, "obra", "2026-02-09 03:10:30")
    reader.poll_at("2026-02-09 03:11:00", "UTC")
    corrected = reader.poll_at("2026-02-09 08:11:00", "UTC")

    assert _minutes(put_back, "loja") == 0
    assert _minutes(corrected, "loja") == 11
    # It came forty seconds after the clock was put back, all of which this test skips.
    assert _minutes(corrected, "obra") == 0


@pytest.mark.parametrize(
    ("first", "then", "age"),
    [("1970-01-02 02:00", "1970-01-02 02:01", 0), ("2026-02-09 02:00", "2026-02-09 02:01", 11)],
)
def test_time_that_the_databases_clock_skips_makes_no_channel_silent(
    mariadb_log: WrittenLog, reader: _Reader, first: str, then: str, age: float
) -> None:
    """As when NTP sets it after the machine's start, or the machine was suspended."""
    _received(mariadb_log, "loja", "2026-02-09 01:50:00")
    reader.poll_at(first, "UTC")
    _received(mariadb_log, "obra", then)
    reader.poll_at(then, "UTC")

    corrected = reader.poll_at("2026-02-09 08:00:00", "UTC")

    assert _minutes(corrected, "loja") == pytest.approx(age, abs=1)
    assert _minutes(corrected, "obra") < 1


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_jump_of_this_machines_clock_makes_no_difference_to_ages(
    mariadb_log: WrittenLog, reader: _Reader, jump: float
) -> None:
    mariadb_log.write("loja", age_seconds=500)
    reader.poll()
    reader.clock.jumped = jump
    mariadb_log.write("obra")

    view = reader.poll()

    assert 500 <= (view.age("loja") or 0) < 500 + _SLACK
    assert (view.age("obra") or 0) < _SLACK


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tailer, "_CHUNK", 1)
    monkeypatch.setattr(log_tailer, "_CHUNK_MOST", 1)


@contextmanager
def _replica_of(primary: MariaDb) -> Iterator[MariaDb]:
    with MariaDb({"server-id": "2", "log-bin": "replica"}) as replica:
        password = secrets.token_hex(8)
        user = primary.create_user(password, "REPLICATION SLAVE ON *.*")
        verb, own, more = "MASTER", "MASTER", "MASTER_USE_GTID=slave_pos"
        if MYSQLD:
            verb, own, more = "REPLICATION SOURCE", "SOURCE", "GET_SOURCE_PUBLIC_KEY=1"
        replica.execute(
            f"CHANGE {verb} TO {own}_HOST='127.0.0.1', {own}_PORT={primary.port},"
            f" {own}_USER='{user}', {own}_PASSWORD='{password}', {more}",
            "START REPLICA",
        )
        yield replica


@pytest.fixture(scope="module")
def replicated() -> Iterator[tuple[MariaDb, MariaDb]]:
    with (
        MariaDb({"server-id": "1", "log-bin": "primary"}) as primary,
        _replica_of(primary) as replica,
    ):
        yield primary, replica


def test_a_replica_that_lags_gives_each_message_its_own_time_when_it_comes(
    replicated: tuple[MariaDb, MariaDb],
) -> None:
    primary, replica = replicated
    name = primary.create_database()
    written = WrittenLog(primary.url(name), replica.url(name))
    written.write("loja", age_seconds=500)
    last_row = written.write("obra", age_seconds=400)
    log = MessageLog(written.reader)
    wait_until(lambda: _newest(log) == last_row, "the replica to have the rows")
    last = LogTailer(log, _WEEK)
    last.poll(("loja", "obra"))

    replica.execute("STOP REPLICA SQL_THREAD")
    last_row = written.write("obra", age_seconds=200)
    behind = last.poll(("loja", "obra"))
    replica.execute("START REPLICA SQL_THREAD")
    wait_until(lambda: _newest(log) == last_row, "the replica to come after")
    view = last.poll(("loja", "obra"))
    log.close()
    written.engine.dispose()

    assert 400 <= (behind.age("obra") or 0) < 400 + _SLACK
    assert 200 <= (view.age("obra") or 0) < 200 + _SLACK, "not as if it had been sent just now"
    assert 500 <= (view.age("loja") or 0) < 500 + _SLACK
    assert view.messages == {("obra", Direction.IN): 1}


def _newest(log: MessageLog) -> int:
    try:
        return log.head(0).newest_id
    except MessageLogError:
        return -1  # the replica may not have the table yet


def _swap(written: WrittenLog) -> None:
    """Let the table and its copy of some time ago change places, as a proxy lets servers."""
    written.run(
        "RENAME TABLE webhook_raw_logs TO other_server, copy TO webhook_raw_logs,"
        " other_server TO copy"
    )


def test_a_server_that_has_not_got_as_far_doubles_nothing_and_forgets_nothing(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    mariadb_log.write("noise", age_seconds=900)
    reader.poll()
    mariadb_log.write("loja", age_seconds=800)
    reader.poll()
    mariadb_log.run("CREATE TABLE copy LIKE webhook_raw_logs")
    mariadb_log.run("INSERT INTO copy SELECT * FROM webhook_raw_logs")
    mariadb_log.write_many(["loja", "obra", "obra"], age_seconds=100)
    reader.poll()

    _swap(mariadb_log)
    behind = reader.poll()
    _swap(mariadb_log)
    mariadb_log.write("obra")
    again = reader.poll()

    assert 100 <= (behind.age("loja") or 0) < 100 + _SLACK
    assert (again.age("obra") or 0) < _SLACK
    assert again.messages == {("loja", Direction.IN): 2, ("obra", Direction.IN): 3}


# The server raises it itself, in the middle of reading the rows.
_RAISING = """
    CREATE FUNCTION raising(id INT UNSIGNED) RETURNS INT UNSIGNED NO SQL
    BEGIN
        IF id IS NOT NULL THEN
            SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'try again';
        END IF;
        RETURN id;
    END
"""


@pytest.mark.parametrize(
    ("state", "number"),
    [("40001", 1213), ("HY000", 1205), ("70100", 1317), ("HY000", 1020)],
    ids=["deadlock", "lock wait time-out", "killed", "changed since last read"],
)
def test_an_error_that_passes_loses_and_doubles_nothing(
    mariadb_log: WrittenLog, reader: _Reader, state: str, number: int
) -> None:
    mariadb_log.write("loja", age_seconds=300)
    reader.poll()
    mariadb_log.write_many(["obra", "loja"])
    mariadb_log.run(_RAISING.format(state=state, number=number))
    mariadb_log.run("RENAME TABLE webhook_raw_logs TO rows_of_it")
    mariadb_log.run(
        "CREATE VIEW webhook_raw_logs AS SELECT raising(id) AS id, received_at, event_type,"
        " payload_json FROM rows_of_it"
    )

    for _ in range(2):
        with pytest.raises(MessageLogError, match=f"{number} .*try again"):
            reader.poll()

    mariadb_log.run("DROP VIEW webhook_raw_logs")
    mariadb_log.run("RENAME TABLE rows_of_it TO webhook_raw_logs")
    view = reader.poll()
    assert view.messages == {("obra", Direction.IN): 1, ("loja", Direction.IN): 1}
    assert (view.age("loja") or 0) < _SLACK


def test_a_table_that_is_locked_is_not_waited_for_and_its_lock_is_survived(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    mariadb_log.write("loja", age_seconds=300)
    reader.poll()
    with mariadb_log.engine.connect() as other:
        other.execute(sa.text("LOCK TABLES webhook_raw_logs WRITE"))
        insert_message(other, "obra")
        other.commit()
        with pytest.raises(
            MessageLogError, match=r"max_statement_time|maximum statement execution time"
        ):
            reader.poll()
        other.execute(sa.text("UNLOCK TABLES"))

    assert reader.poll().messages == {("obra", Direction.IN): 1}


def test_rows_that_are_too_many_for_one_statement_are_read_in_several(
    mariadb_log: WrittenLog, reader: _Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_log, "_STATEMENT_SECONDS", 0.05)
    reader.poll()
    # Some 8 ms each: to find that a name is nowhere, all of a payload has to be read.
    mariadb_log.write_many(["loja"] * 30, payload={"body": "A" * 150_000, "to": "loja"})
    mariadb_log.write("obra")

    view = reader.poll()
    while view.unread:
        view = reader.poll()

    assert view.messages == {("obra", Direction.IN): 1}
    assert view.rows_read == 31


def test_isolation_that_would_lock_what_is_read_locks_nothing(
    mariadb: MariaDb, mariadb_log: WrittenLog
) -> None:
    row = mariadb_log.write("loja", age_seconds=300)
    mariadb.execute("SET GLOBAL TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    try:
        strict = _Reader(mariadb, mariadb_log)
        with mariadb_log.engine.connect() as writer:
            writer.execute(sa.text("UPDATE webhook_raw_logs SET processed = 1"))
            assert (strict.poll().age("loja") or 0) >= 300
            writer.commit()
        mariadb_log.run("UPDATE webhook_raw_logs SET processed = 0 WHERE id = :id", id=row)
        strict.close()
    finally:
        mariadb.execute("SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def test_a_server_that_dies_and_comes_back_doubles_and_loses_nothing(
    mariadb: MariaDb, mariadb_log: WrittenLog, reader: _Reader
) -> None:
    # As a careful server would have it: on disk when it is committed.
    mariadb.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    mariadb_log.write("casa", age_seconds=300)
    reader.poll("casa")
    mariadb_log.write_many(["loja"] * 3)
    assert reader.poll().messages == {("loja", Direction.IN): 3}
    mariadb_log.write("obra")
    mariadb.kill()
    try:
        with pytest.raises(MessageLogError) as caught:
            reader.poll()
    finally:
        mariadb.start()
    mariadb_log.write("loja")
    view = reader.poll()

    assert str(caught.value).isprintable()
    assert view.messages == {("loja", Direction.IN): 4, ("obra", Direction.IN): 1}
    assert (view.age("casa") or 0) >= 300


_BACKLOG = 30_000


def test_a_backlog_is_held_in_memory_a_piece_at_a_time(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    reader.poll()
    piece = log_tailer._CHUNK_MOST

    def read() -> None:
        while reader.poll().unread:
            pass

    peak = least_peak(read, lambda: mariadb_log.write_noise(_BACKLOG, "loja"))
    assert reader.poll().messages == {("loja", Direction.IN): 3 * _BACKLOG}
    # About 1 KB for each row of a piece and for each id of the overlap, and nothing for the rest.
    assert peak < 1_500 * (2 * piece + log_tailer._OVERLAP_ROWS)
    assert peak < 1_000 * _BACKLOG


def test_a_table_that_was_replaced_by_a_restored_copy_is_read_on(
    mariadb_log: WrittenLog, reader: _Reader
) -> None:
    mariadb_log.write_many(["loja", "obra"], age_seconds=500)
    reader.poll()
    mariadb_log.write("obra", age_seconds=300)
    reader.poll()
    mariadb_log.run("RENAME TABLE webhook_raw_logs TO before_it")
    create_message_log(mariadb_log.engine)
    mariadb_log.run("INSERT INTO webhook_raw_logs SELECT * FROM before_it WHERE id <= 2")
    mariadb_log.write("loja")

    view = reader.poll()

    assert (view.age("loja") or 0) < _SLACK
    assert 300 <= (view.age("obra") or 0) < 300 + _SLACK
