"""Single reads of the message log, on a real MariaDB and on SQLite."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from pymysql.cursors import Cursor
from pymysql.err import OperationalError

from demo.simulator.payloads import PLACES
from demo.simulator.schema import insert_message
from tests.support.mariadb import MYSQLD, MariaDb
from tests.support.message_logs import WrittenLog
from tests.support.raw_server import RawServer, deaf_port
from zapwatch import http
from zapwatch.channels import Channel, Names, Status
from zapwatch.config import collect, parse, parse_pixelhub_env
from zapwatch.messages.message import Direction, MessageLogError, make_token
from zapwatch.messages.webhook_log import CHANNEL_PATHS, MessageLog, Row


@contextmanager
def _opened(url: sa.URL) -> Iterator[MessageLog]:
    log = MessageLog(url)
    try:
        yield log
    finally:
        log.close()


_DEEP = '{"sessionId": "loja", "data": ' + "[" * 2000 + "]" * 2000 + "}"
"""Deeper than any of the databases parses."""


def _only_row(log: MessageLog) -> Row:
    (row,) = log.rows_after(0, 10)
    return row


def _nested(place: str, value: Any) -> dict[str, Any]:
    for key in reversed(place.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def _merged(outer: dict[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    merged = dict(outer)
    for key, value in inner.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _keys(log: MessageLog) -> list[str | None]:
    return [row.key for row in log.rows_after(0, 100)]


def test_the_first_place_that_a_payload_has_counts(written: WrittenLog, log: MessageLog) -> None:
    for first in range(len(PLACES)):
        payload: dict[str, Any] = {}
        for number in range(first, len(PLACES)):
            payload = _merged(payload, _nested(PLACES[number], f"channel{number}"))
        written.write(payload=payload)

    assert _keys(log) == [f"channel{first}" for first in range(len(PLACES))]
    assert [path.removeprefix("$.") for path in CHANNEL_PATHS] == list(PLACES)


def test_a_place_that_holds_no_name_is_passed_over(written: WrittenLog, log: MessageLog) -> None:
    named = {"data": {"channel": "loja"}}
    for place in ("sessionId", "session", "data.session.id", "channel"):
        for nothing in (None, "", {}, [], {"id": None}, ["loja"]):
            written.write(payload=_merged(_nested(place, nothing), named))

    assert _keys(log) == ["loja"] * 24


def test_any_name_becomes_its_key(written: WrittenLog, log: MessageLog) -> None:
    names = {
        "São João": "São João",
        "客服 🏠": "客服 🏠",
        "qu\"o'te\\": "qu\"o'te\\",
        "a/b+c%20": "a/b+c%20",
        5521: "5521",
        "x" * 255: "x" * 255,
        "x" * 256: None,
        "  ": None,
    }
    for named in names:
        written.write(payload={"sessionId": named})

    assert _keys(log) == list(names.values())


def test_what_is_broken_or_names_no_channel_or_is_no_message_is_no_channels(
    written: WrittenLog, log: MessageLog
) -> None:
    broken = (
        "",
        "no JSON",
        '{"sessionId": "loja"',
        '{"sessionId": "loja", "data": {"body": "cut of',
        "{'sessionId': 'loja'}",
        '{"sessionId": "loja"} trailing',
        '"loja"',
        '["loja"]',
        "null",
        "{}",
        '{"session": "loja"}',
        '{"body": "{\\"sessionId\\": \\"loja\\"}"}',
    )
    others = (
        *(None, "", "%", "presence.update", "connection.update", "meta_message"),
        *("messages", "message.ack"),
    )
    of_whapi = ("whapi_statuses_post", "whapi_messages_patch", "whapi_channel_post")
    rows: list[tuple[str | None, Any]] = [
        *(("message", payload) for payload in broken),
        *((event_type, {"sessionId": "loja"}) for event_type in others),
        *((event_type, _whapi_event({"id": "a"})) for event_type in of_whapi),
        ("whapi_messages_post", "{"),
        ("whapi_messages_post", "{" + "A" * 100_000),
        ("whapi_messages_post", "7"),
        ("whapi_messages_post", _whapi_event()),
        ("whapi_messages_post", _whapi_event({"id": "a"}, channel=None)),
        ("whapi_messages_post", _whapi_event({"id": "a"}, channel="x" * 256)),
    ]
    for event_type, payload in rows:
        written.write(event_type=event_type, payload=payload)
    written.write("obra")

    assert _keys(log) == [None] * len(rows) + ["obra"]


def test_a_payload_nested_too_deeply_is_passed_over(written: WrittenLog, log: MessageLog) -> None:
    written.write_many(["obra"] * 3)
    deep = written.write(payload=_DEEP)
    written.write_many(["loja"] * 20)

    assert [row.key for row in _all_rows(log, 9)] == ["obra"] * 3 + [None] + ["loja"] * 20
    assert [row.key for row in log.rows_among([deep], 5)] == [None]


@pytest.mark.parametrize(
    ("event_type", "payload"),
    [("message", _DEEP), ("whapi_messages_post", "{" + "A" * 100_000)],
    ids=["deep", "large"],
)
def test_a_payload_at_which_mysql_fails_keeps_no_other_row_from_being_read(
    mariadb_log: WrittenLog, monkeypatch: pytest.MonkeyPatch, event_type: str, payload: str
) -> None:
    mariadb_log.write_many(["obra"] * 3)
    deep = mariadb_log.write(event_type=event_type, payload=payload)
    mariadb_log.write_many(["loja"] * 20)
    _fail_as_mysql(monkeypatch, deep)

    with _opened(mariadb_log.reader) as log:
        assert [row.key for row in _all_rows(log, 9)] == ["obra"] * 3 + [None] + ["loja"] * 20
        before = log.rows_before(deep + 1, 4)
        assert [row.id for row in before] == [deep], "the largest part that can be read"
        assert [row.key for row in log.rows_among([deep], 5)] == [None]


def _all_rows(log: MessageLog, limit: int) -> list[Row]:
    rows: list[Row] = []
    while found := log.rows_after(rows[-1].id if rows else 0, limit):
        rows += found
    return rows


def _fail_as_mysql(monkeypatch: pytest.MonkeyPatch, deep: int) -> None:
    """Let a statement that parses the payload of this row fail as MySQL does."""
    execute = Cursor.execute

    def fails(cursor: Cursor, query: str, args: object = None) -> int:
        count = execute(cursor, query, args)
        if count and "json_valid" in query:
            rows = cursor.fetchall()
            cursor.scroll(0, "absolute")
            if any(row[0] == deep for row in rows):
                raise OperationalError(3157, "The JSON document exceeds the maximum depth.")
        return count

    monkeypatch.setattr(Cursor, "execute", fails)


def test_a_payload_that_mentions_another_channel_belongs_to_its_own(
    written: WrittenLog, log: MessageLog
) -> None:
    words = 'ask "loja": {"sessionId": "loja"}, "channel":"loja" %loja%'
    written.write("obra", words=words, place="data.channel")
    written.write(payload={"event": "message", "data": {"body": words, "to": "loja"}})

    assert [row.key for row in log.rows_after(0, 10)] == ["obra", None]


def test_the_event_tells_the_direction_and_what_the_gateway_may_write_by_itself(
    written: WrittenLog, log: MessageLog
) -> None:
    events = {
        "message": (Direction.IN, True),
        "onmessage": (Direction.IN, True),
        "message.received": (Direction.IN, True),
        "onselfmessage": (Direction.OUT, True),
        "message.sent": (Direction.OUT, False),
    }
    for event_type in events:
        written.write(event_type=event_type)

    rows = log.rows_after(0, 10)
    assert [row.key for row in rows] == ["loja"] * len(events)
    assert [(row.direction, row.heard) for row in rows] == list(events.values())


def _whapi_event(*messages: Any, channel: object = "ABCDEF-12345") -> dict[str, Any]:
    event = {"type": "messages", "event": "post"}
    return {"messages": list(messages), "event": event, "channel_id": channel}


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_whapi_row_is_as_many_rows_as_it_holds_messages_whatever_its_size(
    written: WrittenLog, log: MessageLog, size: int
) -> None:
    told = [
        (False, "mobile", "delivered", Direction.IN, True),
        (True, "mobile", "sent", Direction.OUT, True),
        (True, "mobile", "pending", Direction.OUT, False),
        (True, "api", "sent", Direction.OUT, False),
    ]
    messages = [
        {"id": "a", "image": "A" * size, "from_me": from_me, "source": source, "status": status}
        for from_me, source, status, _, _ in told
    ]
    payload = _whapi_event(*messages, "stray")
    written.write(event_type="whapi_messages_post", payload=payload)

    rows = log.rows_after(0, 10)
    assert len({(row.id, row.time) for row in rows}) == 1
    assert rows[0].time is not None
    assert {row.key for row in rows} == {"ABCDEF-12345"}
    found = [(row.direction, row.heard) for row in rows]
    assert found == [(direction, heard) for *_, direction, heard in told]


def test_a_whapi_row_of_too_many_values_is_not_parsed(
    sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_JSON_MEMORY", 10_000)
    for number in (1, 100):
        payload = _whapi_event(*[{"id": "a"}] * number)
        sqlite_log.write(event_type="whapi_messages_post", payload=payload)

    assert _keys(MessageLog(sqlite_log.reader)) == ["ABCDEF-12345", None]


@pytest.mark.parametrize("large", [False, True])
def test_a_whapi_row_of_messages_that_names_no_channel_is_unnamed(
    written: WrittenLog, log: MessageLog, large: bool
) -> None:
    one = {"id": "a", "image": "A" * 100_000 * large}
    for payload in (_whapi_event(one, channel=None), _whapi_event(one), _whapi_event()):
        written.write(event_type="whapi_messages_post", payload=payload)

    assert [row.unnamed for row in log.rows_after(0, 10)] == [True, False, False]


def test_an_echo_in_a_whapi_row_is_told_by_its_token(written: WrittenLog, log: MessageLog) -> None:
    token = make_token("ABCDEF-12345")
    text = {"body": f"Zapwatch: does this arrive? {token}"}
    heard = {"id": "a", "from_me": False, "text": text}
    noted = {"id": "b", "from_me": True, "source": "api", "text": text}
    payload = _whapi_event({"id": "c", "from_me": False}, heard, noted)
    written.write(event_type="whapi_messages_post", payload=payload)
    rows = log.rows_after(0, 10)

    assert [(row.key, row.echo) for row in rows] == [
        ("ABCDEF-12345", None),
        ("ABCDEF-12345", token),
        (None, None),
    ]


def test_an_echo_is_told_by_its_token_wherever_the_text_stands(
    written: WrittenLog, log: MessageLog
) -> None:
    token = make_token("Lo Ja")
    log.names = Names([Channel("Lo Ja", Status.CONNECTED)])
    for payload in (
        {"sessionId": "loja", "body": f"Does this arrive? {token}"},
        {"session": {"id": "LOJA"}, "data": {"message": {"conversation": f"<b>{token}</b>"}}},
        {"channel": "lo ja", "text": f'é "{token}"', "more": "x" * 60_000},
    ):
        written.write(event_type="onmessage", payload=payload)

    assert [(row.key, row.heard, row.echo) for row in log.rows_after(0, 10)] == [
        ("Lo Ja", True, token)
    ] * 3


def test_the_senders_own_note_of_an_echo_is_no_channels_message(
    written: WrittenLog, log: MessageLog
) -> None:
    token = make_token("loja")
    # Whatever the event is called: of the sender, and the API's own for a message to oneself.
    written.write("obra", event_type="message", words=token, outgoing=True)
    written.write("obra", event_type="onselfmessage", words=token, outgoing=True)
    written.write("obra", event_type="message.sent", words=token, outgoing=True)
    written.write("loja", event_type="message.sent", words=token, outgoing=True)
    written.write("loja", event_type="onselfmessage", words=token, outgoing=True)

    rows = log.rows_after(0, 10)
    assert [(row.key, row.echo) for row in rows[:4]] == [(None, None)] * 4
    assert (rows[4].key, rows[4].heard, rows[4].echo) == ("loja", True, token)


def test_what_only_resembles_an_echo_is_heard_as_usual(
    written: WrittenLog, log: MessageLog
) -> None:
    written.write("loja", words="zapwatch, echo-")
    written.write("loja", event_type="presence.update", words=make_token("loja"))
    written.write("loja", words=f"{make_token('loja')[:-1]}!")
    written.write("zapwatch-echo-", words="hello")

    rows = log.rows_after(0, 10)
    assert [row.echo for row in rows] == [None] * 4
    assert [row.key for row in rows] == ["loja", None, "loja", "zapwatch-echo-"]


def test_the_head_tells_the_newest_id_and_when_a_known_row_came(
    written: WrittenLog, log: MessageLog
) -> None:
    empty = log.head(17)
    assert (empty.newest_id, empty.known_time) == (0, None)
    old, _, newest = written.write(age_seconds=3600), written.write(), written.write()

    head = log.head(old)

    assert head.newest_id == newest
    assert head.known_time is not None
    assert head.now - head.known_time == pytest.approx(3600, abs=60)


def test_rows_come_in_bounded_pieces_in_both_directions(
    written: WrittenLog, log: MessageLog
) -> None:
    one, two, three, four = written.write_many(["loja"] * 4)

    assert [row.id for row in log.rows_after(one, 2)] == [two, three]
    assert [row.id for row in log.rows_after(four, 2)] == []
    assert [row.id for row in log.rows_before(four, 2)] == [three, two]
    assert [row.id for row in log.rows_before(one, 2)] == []
    assert sorted(row.id for row in log.rows_among([four, two, 999], 10)) == [two, four]
    assert log.ids_between(one, four, 10) == [four, three, two]
    assert log.ids_between(one, three, 1) == [three]


def test_ids_up_to_the_largest_that_the_table_holds_are_read(
    written: WrittenLog, log: MessageLog
) -> None:
    written.write_as(4_294_967_294)

    assert log.head(0).newest_id == 4_294_967_294
    assert _only_row(log).id == 4_294_967_294


def test_a_date_that_is_none_has_no_time(written: WrittenLog, log: MessageLog) -> None:
    row = written.write()
    if written.is_sqlite:
        written.received(row, "yesterday")
    else:
        with written.engine.begin() as connection:
            connection.execute(sa.text("SET SESSION sql_mode = ''"))
            connection.execute(sa.text("UPDATE webhook_raw_logs SET received_at = 0"))

    assert (_only_row(log).time, _only_row(log).key) == (None, "loja")


_ZONES = ["America/Sao_Paulo", "America/New_York", "+05:30", "+00:00"]


@pytest.fixture
def process_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def zoned(mariadb: MariaDb, request: pytest.FixtureRequest) -> Iterator[str]:
    mariadb.execute(f"SET GLOBAL time_zone = '{request.param}'")
    yield request.param
    mariadb.execute("SET GLOBAL time_zone = 'SYSTEM'")


@pytest.mark.parametrize(
    ("process_zone", "zoned", "kind"),
    [
        *itertools.product(["Asia/Tokyo", "America/Sao_Paulo"], _ZONES, ["mariadb"]),
        ("Asia/Tokyo", "SYSTEM", "sqlite"),
    ],
    indirect=["process_zone", "zoned"],
)
@pytest.mark.usefixtures("process_zone", "zoned")
def test_ages_are_right_whatever_the_zones_of_server_and_process(
    request: pytest.FixtureRequest, kind: str
) -> None:
    written = request.getfixturevalue(f"{kind}_log")
    row = written.write(age_seconds=1000)
    with _opened(written.reader) as log:
        head = log.head(row)

    assert head.known_time is not None
    assert 1000 <= head.now - head.known_time < 1060
    assert head.now == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("zoned", ["America/New_York", "America/Sao_Paulo"], indirect=True)
@pytest.mark.parametrize(
    "local", ["2018-11-03 12:00:00", "2018-11-04 12:00:00", "2019-06-01 12:00:00"]
)
def test_times_on_both_sides_of_a_clock_change_are_right(
    zoned: str, mariadb_log: WrittenLog, local: str
) -> None:
    row = mariadb_log.write()
    mariadb_log.received(row, local)
    meant = dt.datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zoned))

    with _opened(mariadb_log.reader) as log:
        assert _only_row(log).time == meant.timestamp()


def _bytes_sent(server: MariaDb) -> int:
    return int(server.variable("SHOW GLOBAL STATUS LIKE 'Bytes_sent'"))


def test_a_payload_of_16_mb_stays_in_the_database(
    mariadb: MariaDb, mariadb_log: WrittenLog
) -> None:
    media = "A" * 16_000_000
    rows = [
        mariadb_log.write(payload={"body": media, "data": {"channel": "loja"}}),
        mariadb_log.write(payload={"sessionId": "loja", "body": media[:4_000_000], "cut": "here"}),
        mariadb_log.write(payload={"sessionId": media[:4_000_000]}),
    ]
    with _opened(mariadb_log.reader) as log:
        log.head(0)
        before = _bytes_sent(mariadb)
        read = log.rows_after(0, 10)
        while read[-1].id < rows[-1]:
            more = log.rows_after(read[-1].id, 10)
            assert more, "rows that are too large for one statement come in several"
            read += more
        sent = _bytes_sent(mariadb) - before

    assert [(row.id, row.key) for row in read] == list(
        zip(rows, ["loja", "loja", None], strict=True)
    )
    assert sent < 20_000


def _by_pixelhubs_file(mariadb: MariaDb, log: WrittenLog, **more: str) -> sa.URL:
    """Return the log's address as PixelHub's own file names it."""
    reader = log.reader
    values = {"DB_USER": reader.username, "DB_PASS": reader.password, **more}
    env = (
        "WPP_GATEWAY_BASE_URL=http://g\nWPP_GATEWAY_SECRET=s\n"
        f"DB_HOST=127.0.0.1\nDB_PORT={mariadb.port}\nDB_NAME={reader.database}\n"
        + "".join(f'{name}="{value}"\n' for name, value in values.items())
    )
    url = parse(parse_pixelhub_env(env)).gateways[0].message_log_url
    assert url is not None
    return url


def test_a_password_with_every_awkward_character_logs_in_from_pixelhubs_file(
    mariadb: MariaDb, mariadb_log: WrittenLog
) -> None:
    password = "a$b#c'd\"e@f:g/h\\i%j k$HOME\\n"
    grant = f"SELECT ON {mariadb_log.reader.database}.webhook_raw_logs"
    user = mariadb.create_user(password, grant)
    row = mariadb_log.write()

    url = _by_pixelhubs_file(mariadb, mariadb_log, DB_USER=user, DB_PASS=password)
    with _opened(url) as log:
        assert log.head(0).newest_id == row


# MySQL 9 keeps no hash that can be made without its own algorithm.
@pytest.mark.parametrize("encoding", ["utf-8"] if MYSQLD else ["utf-8", "latin-1"])
def test_a_password_is_sent_as_the_bytes_of_pixelhubs_file(
    mariadb: MariaDb, mariadb_log: WrittenLog, tmp_path: Path, encoding: str
) -> None:
    grant = f"SELECT ON {mariadb_log.reader.database}.webhook_raw_logs"
    user = mariadb.create_user("não", grant)
    password = "não".encode(encoding)
    if encoding != "utf-8":
        # What MariaDB keeps of the bytes that a client sends.
        kept = hashlib.sha1(hashlib.sha1(password).digest()).hexdigest().upper()
        mariadb.execute(f"SET PASSWORD FOR {user}@'127.0.0.1' = '*{kept}'")
    (tmp_path / "pixelhub.env").write_bytes(b"DB_PASS=" + password)
    values = collect(os.devnull, {}, pixelhub_env=str(tmp_path / "pixelhub.env")).values
    row = mariadb_log.write()
    with _opened(mariadb_log.reader.set(username=user, password=values["DB_PASS"])) as log:
        assert log.head(0).newest_id == row


def test_the_first_socket_that_is_there_counts_and_else_the_address(
    mariadb: MariaDb, mariadb_log: WrittenLog, tmp_path: Path
) -> None:
    user = mariadb.create_user("", f"SELECT ON {mariadb_log.reader.database}.webhook_raw_logs")
    mariadb.execute(f"RENAME USER {user}@'127.0.0.1' TO {user}@'localhost'")
    row = mariadb_log.write()
    (tmp_path / "file.sock").touch()
    missing = [str(tmp_path / name) for name in ("file.sock", "none.sock")]
    there = mariadb.variable("SHOW VARIABLES LIKE 'socket'")
    local = mariadb_log.reader.set(username=user, password="")
    with _opened(local.update_query_dict({"unix_socket": [*missing, there]})) as log:
        assert log.head(0).newest_id == row
    assert "Access denied" in _failure(local.update_query_dict({"unix_socket": missing}))


@pytest.mark.parametrize("charset", ["utf8mb4", "utf8", "UTF8MB4", "latin1"])
def test_each_usual_charset_works(mariadb: MariaDb, mariadb_log: WrittenLog, charset: str) -> None:
    mariadb_log.write("São João")

    with _opened(_by_pixelhubs_file(mariadb, mariadb_log, DB_CHARSET=charset)) as log:
        assert _only_row(log).key == "São João"


def _failure(url: sa.URL) -> str:
    with _opened(url) as log, pytest.raises(MessageLogError) as caught:
        log.head(0)
    line = str(caught.value)
    assert line.isprintable()
    assert "SELECT" not in line.replace("SELECT command denied", "")
    assert caught.value.__cause__ is None
    return line


def test_a_missing_right_a_missing_table_and_a_missing_database_are_told(
    mariadb: MariaDb, mariadb_log: WrittenLog
) -> None:
    other = mariadb.create_database()
    nobody = mariadb.create_user("", f"INSERT ON {mariadb_log.reader.database}.webhook_raw_logs")

    assert "SELECT command denied" in _failure(mariadb_log.reader.set(username=nobody, password=""))
    missing = _failure(mariadb.url(other))
    assert "doesn't exist" in missing
    assert missing.endswith("set MESSAGE_LOG_URL=none")
    mariadb.drop_database(other)
    assert "Unknown database" in _failure(mariadb.url(other))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"port": 1}, ""),
        ({"host": "database.invalid"}, ""),
        ({"host": "a..b"}, ""),
        ({"query": {"charset": "klingon"}}, ""),
        ({"query": {"nonsense": "1"}}, "nonsense"),
        ({"password": "wrong-and-hidden"}, "Access denied for user"),
    ],
    ids=str,
)
def test_a_database_that_cannot_be_reached_is_told(
    mariadb_log: WrittenLog, change: dict[str, Any], said: str
) -> None:
    line = _failure(mariadb_log.reader.set(**change))
    assert line
    assert said in line
    assert "hidden" not in line


@contextmanager
def _mute_port() -> Iterator[int]:
    """Accept connections, and say nothing."""
    with RawServer(lambda conversation: conversation.drip([b"", b""], 60)) as server:
        yield int(server.url.rpartition(":")[2])


@pytest.mark.parametrize("silent_port", [_mute_port, deaf_port])
def test_a_server_that_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, silent_port: Callable[[], AbstractContextManager[int]]
) -> None:
    monkeypatch.setattr("zapwatch.db._TIMEOUT", 1)
    with silent_port() as port:
        started = time.monotonic()
        _failure(sa.URL.create("mysql+pymysql", "u", "p", "127.0.0.1", port, "d"))

    assert time.monotonic() - started < 10


def test_a_statement_that_takes_too_long_is_given_up(
    mariadb: MariaDb, mariadb_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zapwatch.db._TIMEOUT", 1)
    with _opened(mariadb_log.reader) as log, mariadb_log.engine.connect() as other:
        log.head(0)
        other.execute(sa.text("LOCK TABLES webhook_raw_logs WRITE"))
        started = time.monotonic()
        with pytest.raises(MessageLogError):
            log.head(0)
        assert time.monotonic() - started < 10
        other.execute(sa.text("UNLOCK TABLES"))

        assert log.head(0).newest_id == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "unable to open database file"), (b"no database" * 100, "file is not a database")],
)
def test_a_file_that_is_missing_or_no_database_is_told_and_not_changed(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "log.sqlite3"
    if content is not None:
        path.write_bytes(content)

    assert said in _failure(sa.URL.create("sqlite", database=str(path)))
    assert (path.read_bytes() if path.exists() else None) == content


def test_an_sqlite_file_may_have_any_name_and_is_only_read(tmp_path: Path) -> None:
    folder = tmp_path / "a b#c?d%41&mode=rwc"
    folder.mkdir()
    writer = WrittenLog(sa.URL.create("sqlite", database=str(folder / "log.sqlite3")))
    row = writer.write()

    with _opened(writer.reader) as log:
        assert log.head(0).newest_id == row
        with log._engine.connect() as connection, pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("DELETE FROM webhook_raw_logs"))


def test_an_sqlite_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite3"
    first = WrittenLog(sa.URL.create("sqlite", database=str(path)))
    first.write_many(["loja"] * 3)
    with _opened(first.reader) as log:
        assert log.head(0).newest_id == 3
        path.unlink()
        WrittenLog(first.reader).write("obra")

        assert [row.key for row in log.rows_after(0, 10)] == ["obra"]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("message", "CAST(x'7b2273657373696f6e4964223a22ff227d' AS TEXT)"),
        ("message", "CAST('zapwatch-echo-' AS BLOB)"),
        ("whapi_messages_post", """CAST('{"channel_id":"x","messages":[{}]}' AS BLOB)"""),
    ],
)
def test_text_that_is_no_text_does_not_stop_the_reading(
    sqlite_log: WrittenLog, kind: str, payload: str
) -> None:
    path = sqlite_log.reader.database
    assert path is not None
    with sqlite3.connect(path) as connection:
        connection.execute(
            f"INSERT INTO webhook_raw_logs (event_type, payload_json) VALUES ('{kind}', {payload})"
        )
    connection.close()
    sqlite_log.write("obra")

    with _opened(sqlite_log.reader) as log:
        assert [row.key for row in log.rows_after(0, 10)][-1] == "obra"


def test_the_reader_holds_no_lock_that_a_writer_would_wait_for(
    written: WrittenLog, log: MessageLog
) -> None:
    row = written.write()
    log.head(row)
    log.rows_after(0, 10)
    log.rows_before(row, 10)

    # Each of these would wait for a transaction or a table that somebody reads.
    written.run("UPDATE webhook_raw_logs SET processed = 1")
    written.run("ALTER TABLE webhook_raw_logs ADD COLUMN more INT NULL")
    written.truncate()

    assert log.head(row).newest_id == 0


def test_the_reader_does_not_wait_for_a_writer(mariadb_log: WrittenLog) -> None:
    row = mariadb_log.write("loja")
    with _opened(mariadb_log.reader) as log, mariadb_log.engine.connect() as writer:
        writer.execute(sa.text("SELECT * FROM webhook_raw_logs FOR UPDATE"))
        writer.execute(sa.text("UPDATE webhook_raw_logs SET payload_json = '{}'"))
        insert_message(writer, "obra")

        assert [(found.id, found.key) for found in log.rows_after(0, 10)] == [(row, "loja")]
        writer.rollback()


def test_a_read_sees_what_was_committed_a_moment_ago(written: WrittenLog, log: MessageLog) -> None:
    for expected in range(1, 6):
        written.write()

        assert log.head(0).newest_id == expected
