"""Which messages a consumer got, by its log on both kinds of database and by the events store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from exporter.event_buffer import Inbox, TakenMessages
from tests.support.clock import HandMovedClock
from tests.support.message_logs import WrittenLog
from zapwatch.channels import Channel, Status
from zapwatch.clock import Clock
from zapwatch.messages import source as source_module
from zapwatch.messages.event_store import EventStore, StoredMessages
from zapwatch.messages.message import (
    Delivered,
    Direction,
    Message,
    MessageLogError,
    make_token,
)
from zapwatch.messages.source import LogMessages
from zapwatch.messages.webhook_log import MessageLog

_WEB = "false_5500000000001@c.us_"
_HOUR = 3600.0
_LOJA = Channel("loja", Status.CONNECTED)


class _Log:
    """A log, and the source that reads it."""

    def __init__(self, written: WrittenLog) -> None:
        self.written = written
        self.log = MessageLog(written.reader)
        self.source = LogMessages(self.log, 3600)

    def write(self, payload: dict[str, Any], event: str = "message", ago: int = 0) -> int:
        """Write a row of the channel ``loja``."""
        body = {"sessionId": "loja"} | payload
        return self.written.write(event_type=event, payload=body, age_seconds=ago)

    def copy_first(self, count: int) -> None:
        """Write messages without an id, at the time of the first row."""
        statement = (
            "INSERT INTO webhook_raw_logs (received_at, event_type, payload_json)"
            " SELECT received_at, 'message', :payload FROM webhook_raw_logs WHERE id = 1"
        )
        rows = [{"payload": json.dumps({"sessionId": "loja"})}] * count
        with self.written.engine.begin() as connection:
            connection.execute(sa.text(statement), rows)

    def delivered(self, hours: float = 1) -> Delivered:
        """Ask for the last hours."""
        return self.source.delivered([_LOJA], Clock().time() - hours * _HOUR)

    def arrived(self, *ids: str) -> set[str]:
        """Return which of the ids of the last hour are there."""
        return set(self.delivered().among("loja", ids))


@pytest.fixture
def log(written: WrittenLog) -> Iterator[_Log]:
    made = _Log(written)
    yield made
    made.log.close()


def test_the_id_is_found_wherever_a_payload_has_it(log: _Log) -> None:
    payloads: list[dict[str, Any]] = [
        {"id": f"{_WEB}A1"},
        {"id": {"_serialized": f"{_WEB}A1", "fromMe": False}},
        {"id": "false_120363000000000001@g.us_A1_5500000000002@c.us"},
        {"id": "false_100000000000001@lid_A1"},
        {"id": "A1"},
        {"messageId": "A1"},
        {"message": {"key": {"id": "A1", "fromMe": False}}},
        {"id": "evt_01J0000000", "payload": {"id": f"{_WEB}A1"}},
        {"data": {"key": {"id": "A1"}}},
        {"raw": {"payload": {"key": {"id": "A1"}}}},
        {"id": f"{_WEB}A1", "quotedMsg": {"fromMe": True}},
    ]
    for payload in payloads:
        log.write(payload)
        assert log.arrived("A1", "A2") == {"A1"}, payload
        log.written.purge()


def test_what_is_no_arrival_of_the_channel_is_none(log: _Log) -> None:
    log.write({"id": f"{_WEB}A1", "type": "ciphertext"})
    log.write({"id": "true_5500000000001@c.us_A2"})
    log.write({"id": "A3", "fromMe": True})
    log.write({"id": "A4"}, "onselfmessage")
    log.write({"id": "A5"}, "message.ack")
    log.write({"id": "A6", "sessionId": "obra"})
    log.write({"id": ["A7"]})
    assert log.arrived(*(f"A{number}" for number in range(1, 8))) == set()

    log.write({"id": f"{_WEB}A1", "type": "chat"})
    assert log.arrived("A1") == {"A1"}, "the ciphertext became text"


@pytest.mark.parametrize("preview", ["", "A" * 100_000])
def test_a_whapi_row_has_an_id_for_each_message_that_came(log: _Log, preview: str) -> None:
    messages = [
        {"id": "A_1", "from_me": False, "image": {"preview": preview}},
        {"id": "A2", "from_me": False},
        {"id": "A3", "from_me": True},
    ]
    log.write({"messages": messages, "channel_id": "loja"}, "whapi_messages_post")

    assert log.arrived("A_1", "A2", "A3") == {"A_1", "A2"}


def test_a_channel_is_found_by_the_name_that_the_log_uses(log: _Log) -> None:
    loja = replace(_LOJA, alias="ABCDEF-12345")
    echo = make_token(loja.message_key)
    log.write({"id": "A1"}, ago=600)
    log.write({"id": "A2", "sessionId": "ABCDEF-12345"}, ago=60)
    log.write({"body": echo, "sessionId": "ABCDEF-12345"}, ago=60)
    age = log.source.poll([_LOJA]).age("loja")
    assert age is not None
    assert age >= 600, "the list does not have the other name yet"
    again = LogMessages(log.log, 3600, lambda: [loja])
    again.restore(log.source.checkpoint())

    for source in (log.source, again):
        view = source.poll([loja])
        assert view.last_message["loja"] > view.now - 600
    assert again.recent(3600).ages.keys() == {"loja"}
    assert again.recent(3600).echoes == {echo}
    assert again.histories({"loja"}, lambda: None)["loja"].messages == 2
    delivered = log.source.delivered([loja], Clock().time() - _HOUR)
    assert set(delivered.among("loja", ["A1", "A2", "A3"])) == {"A1", "A2"}
    assert delivered.heard == {"loja"}


def test_rows_that_are_no_json_are_passed_over(log: _Log) -> None:
    log.write({"id": "A1"})
    for payload in ("no json", "[" * 2000 + "]" * 2000, "null", "[]"):
        log.written.write(payload=payload)

    assert log.arrived("A1") == {"A1"}


def test_a_log_is_read_as_far_back_as_the_time_and_a_little_more(log: _Log) -> None:
    log.write({"id": "OLD"}, ago=5 * 3600)
    log.copy_first(1100)
    log.write({"id": "EARLY"}, ago=3600 + 300)
    log.write({"id": "A1"}, ago=60)

    delivered = log.delivered()

    assert delivered.among("loja", ["OLD", "EARLY", "A1"]) == {"EARLY", "A1"}
    assert set(delivered.heard) == {"loja"}
    assert list(delivered.gaps) == []
    assert list(log.delivered(hours=0.001).heard) == []
    pauses: list[None] = []
    log.source.delivered([_LOJA], Clock().time() - _HOUR, lambda: pauses.append(None))
    assert len(pauses) > 1, "one for each statement"


def test_a_message_that_its_gateway_dates_by_its_edit_has_arrived(log: _Log) -> None:
    """As Evolution does: WhatsApp lets a message be edited for 15 minutes."""
    log.write({"id": "EDITED"}, ago=3600 + 900)
    log.copy_first(1100)
    log.write({"id": "A1"}, ago=60)

    assert log.arrived("EDITED") == {"EDITED"}


def test_a_writer_that_dates_rows_hours_back_has_delivered_them(log: _Log) -> None:
    log.write({"id": "A1"}, ago=3 * 3600 + 600)
    log.copy_first(600)

    assert log.arrived("A1") == {"A1"}


@pytest.mark.parametrize("is_purged", [True, False])
def test_a_log_that_does_not_reach_back_tells_nothing_of_before(
    log: _Log, *, is_purged: bool
) -> None:
    if is_purged:
        log.written.purge(log.write({"id": "A1"}, ago=3000))
    log.write({"id": "A2"}, ago=600)

    [(begin, end)] = log.delivered().gaps
    assert begin == 0
    assert Clock().time() - 620 < end < Clock().time() - 580


def test_an_empty_log_tells_nothing_and_one_that_is_too_long_is_no_answer(
    log: _Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(begin, end)] = log.delivered().gaps
    assert begin == 0
    assert end == pytest.approx(Clock().time(), abs=20)

    log.write({"id": "A1"})
    monkeypatch.setattr(source_module, "_MOST_COMPARED", 0)

    with pytest.raises(MessageLogError, match="more than 0 rows"):
        log.delivered()


def test_each_statement_reads_a_bounded_range_of_the_primary_key(log: _Log) -> None:
    for number in range(1200):
        log.write({"id": f"A{number}"})
    statements: list[tuple[str, Any]] = []
    engine = log.log._engine

    @sa.event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        if "LIMIT" in text.upper():
            statements.append((text, values))

    assert log.arrived("A0", "A1199", "B") == {"A0", "A1199"}

    assert len(statements) == 4
    explain = "EXPLAIN QUERY PLAN " if log.written.is_sqlite else "EXPLAIN FORMAT=TRADITIONAL "
    for text, values in statements[:4]:
        with engine.connect() as connection:
            plan = [str(tuple(row)) for row in connection.exec_driver_sql(explain + text, values)]
        plan = [line for line in plan if "webhook_raw_logs" in line]
        wanted = "INTEGER PRIMARY KEY" if log.written.is_sqlite else "'PRIMARY'"
        assert len(plan) == 1, plan
        assert wanted in plan[0]


class TestStore:
    """The events store, filled by an exporter."""

    _LOJA = Channel("Loja", Status.CONNECTED)

    @pytest.fixture
    def store(self, url: sa.URL) -> Iterator[EventStore]:
        made = EventStore(url)
        yield made
        made.close()

    def _take(self, store: EventStore, clock: Clock, *messages: Message) -> None:
        inbox = Inbox(store, ["wpp"], clock=clock)
        for one in messages:
            inbox.take("wpp", one)
        TakenMessages(inbox, store, "wpp", clock=clock).poll([self._LOJA])

    @staticmethod
    def _message(
        id_: str, key: str = "loja", direction: Direction = Direction.IN, *, readable: bool = True
    ) -> Message:
        return Message(key, direction, 1_700_000_000.0, True, id_, readable=readable)

    def _arrived(self, store: EventStore, clock: Clock, *ids: str) -> set[str]:
        source = StoredMessages(store, "wpp", clock=clock)
        return set(source.delivered([self._LOJA], clock.time() - 60).among("Loja", ids))

    def test_what_came_is_known_by_its_bare_id(self, store: EventStore) -> None:
        clock = HandMovedClock()
        self._take(
            store,
            clock,
            self._message(f"{_WEB}A1"),
            self._message("true_x@c.us_OWN", direction=Direction.OUT),
            self._message("A2", readable=False),
            self._message("A3", key="obra"),
        )

        assert self._arrived(store, clock, "A1", "A2", "A3", "OWN") == {"A1"}

    def test_what_comes_before_the_first_list_is_stored_of_channels_listed_earlier(
        self, store: EventStore
    ) -> None:
        clock = HandMovedClock()
        self._take(store, clock, self._message("A1", key="Loja"))
        restarted = Inbox(store, ["wpp"], clock=clock)
        restarted.take("wpp", self._message("A2", key="Loja"))
        restarted.take("wpp", self._message("A3", key="new"))

        restarted.write()

        assert self._arrived(store, clock, "A1", "A2") == {"A1", "A2"}
        assert store.activity("wpp").last.keys() == {"Loja"}

    def test_no_id_is_stored_as_it_is(self, store: EventStore) -> None:
        clock = HandMovedClock()
        self._take(store, clock, self._message("ABCDEF0123"))

        with store._database.read() as connection:
            [row] = connection.execute(sa.text("SELECT * FROM arrived_ids")).all()
        assert "ABCDEF0123" not in str(tuple(row))

    def test_ids_are_forgotten_after_seven_days(self, store: EventStore) -> None:
        clock = HandMovedClock()
        self._take(store, clock, self._message("A1"))
        clock.forward(7 * 86_400 - 60)
        self._take(store, clock, self._message("A2"))
        store.prune(clock.time())
        assert self._arrived(store, clock, "A1", "A2") == {"A1", "A2"}

        clock.forward(120)
        store.prune(clock.time())

        assert self._arrived(store, clock, "A1", "A2") == {"A2"}

    def test_nothing_is_known_of_before_and_of_times_without_a_receiver(
        self, store: EventStore
    ) -> None:
        clock = HandMovedClock()
        began = clock.time()
        self._take(store, clock)
        clock.forward(3600)
        self._take(store, clock, self._message("A1"))

        delivered = StoredMessages(store, "wpp", clock=clock).delivered([], began)

        assert list(delivered.gaps) == [(began - 300, began + 3600), (0.0, began)]

    def test_nothing_is_known_of_before_a_clock_that_was_ahead_made_ids_go(
        self, store: EventStore
    ) -> None:
        clock = HandMovedClock()
        right = clock.time()
        self._take(store, clock, self._message("A1"))
        clock.set_time(right + 30 * 86_400)
        self._take(store, clock)
        store.prune(clock.time())
        clock.set_time(right + 60)
        self._take(store, clock)

        delivered = StoredMessages(store, "wpp", clock=clock).delivered([], right)

        assert (0.0, right + 60) in delivered.gaps
