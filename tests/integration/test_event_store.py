"""The store of events on both kinds of database, and what is read of it."""

from __future__ import annotations

import itertools
import stat
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from pymysql.cursors import Cursor
from pymysql.err import OperationalError

from exporter import event_buffer as inbox_module
from exporter.event_buffer import Inbox, TakenMessages
from tests.support.waiting import wait_until
from zapwatch.channels import Channel, Status
from zapwatch.clock import Clock
from zapwatch.config import parse
from zapwatch.gateways.base import ChannelList
from zapwatch.messages import event_store as store_module
from zapwatch.messages.event_store import Batch, EventStore, Last, Minutes, StoredMessages, metadata
from zapwatch.messages.message import (
    ActivitySnapshot,
    Direction,
    Message,
    MessageLogError,
    RecentMessages,
    make_token,
)
from zapwatch.messages.source import open_source

_NOW = 1_770_000_000.0
Opened = Callable[[sa.URL], EventStore]
_LOJA, _OTHER = Channel("Loja 1", Status.CONNECTED), Channel("other", Status.CONNECTED)


class DayClock(Clock):
    """The time of day, in a test's hands."""

    def __init__(self) -> None:
        self.now = _NOW
        self._looks = itertools.count(step=3600)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        # So that each call writes that somebody is there.
        return next(self._looks)


@pytest.fixture
def clock() -> DayClock:
    return DayClock()


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Opened:
    def open_(url: sa.URL) -> EventStore:
        store = EventStore(url)
        request.addfinalizer(store.close)
        return store

    return open_


@pytest.fixture
def store(url: sa.URL, opened: Opened) -> EventStore:
    return opened(url)


def message(
    at: float = _NOW,
    key: str = "Loja 1",
    *,
    direction: Direction = Direction.IN,
    heard: bool = True,
    id_: str | None = None,
    echo: str | None = None,
    readable: bool = True,
) -> Message:
    return Message(key, direction, at, heard, id_, echo, readable)


class Exporter:
    """What an exporter has: an inbox for its gateway and what is read of it."""

    def __init__(self, store: EventStore, clock: DayClock, gateway: str = "wpp") -> None:
        self.inbox = Inbox(store, [gateway], clock=clock)
        self._gateway = gateway
        self._source = TakenMessages(self.inbox, store, gateway, clock=clock)

    def take(self, *messages: Message) -> None:
        for one in messages:
            self.inbox.take(self._gateway, one)

    def poll(self, *channels: Channel) -> ActivitySnapshot:
        return self._source.poll(channels or (_LOJA, _OTHER))


def test_what_was_taken_is_known_after_a_restart(store: EventStore, clock: DayClock) -> None:
    first = Exporter(store, clock)
    first.take(message(_NOW - 60), message(_NOW - 50, direction=Direction.OUT, heard=False))
    assert first.poll().age("Loja 1") == 50
    clock.now += 20
    view = Exporter(store, clock).poll()
    assert view.age("Loja 1") == 70
    assert view.age("other") is None
    assert StoredMessages(store, "wpp", clock=clock).recent(81).ages == {"Loja 1": 80}
    assert StoredMessages(store, "wpp", clock=clock).recent(75).ages == {}
    assert view.messages == {}


def test_sessions_whose_names_differ_in_case_have_their_own_messages(
    store: EventStore, clock: DayClock
) -> None:
    twins = ChannelList.of(Channel(name, Status.CONNECTED) for name in ("Loja", "loja")).channels
    exporter = Exporter(store, clock)
    exporter.take(message(_NOW - 5, "Loja", id_="A1"))
    exporter.poll(*twins)
    exporter.take(message(_NOW - 9, "loja", id_="B1"))
    view = exporter.poll(*twins)
    assert (view.age("Loja"), view.age("loja")) == (5, 9)
    assert view.messages == {("Loja", Direction.IN): 1, ("loja", Direction.IN): 1}
    stored = StoredMessages(store, "wpp", lambda: twins, clock=clock)
    assert stored.recent(60).ages == {"Loja": 5, "loja": 9}
    arrived = stored.delivered(twins, _NOW - 60).among
    assert [arrived(one.key, ["A1", "B1"]) for one in twins] == [{"A1"}, {"B1"}]


def test_a_channel_is_found_by_the_name_that_events_use(store: EventStore, clock: DayClock) -> None:
    exporter, loja = Exporter(store, clock), replace(_LOJA, alias="ABCDEF-12345")
    exporter.take(message(_NOW - 9, "Loja 1"), message(_NOW - 5, "ABCDEF-12345", id_="A1"))
    assert exporter.poll().age("Loja 1") == 9, "the list does not have the other name yet"
    exporter.poll(loja)
    exporter.take(message(key="ABCDEF-12345", readable=False))
    view = exporter.poll(loja)
    assert (view.age("Loja 1"), view.heard_age("Loja 1")) == (5, 5)
    assert view.messages == {("Loja 1", Direction.IN): 2}
    assert view.undecryptable == {"Loja 1": 1}
    stored = StoredMessages(store, "wpp", lambda: [loja], clock=clock)
    assert stored.recent(60).ages == {"Loja 1": 5}
    assert stored.histories({"Loja 1"}, lambda: None)["Loja 1"].messages == 2
    unlisted = StoredMessages(store, "wpp", clock=clock).delivered([loja], _NOW - 60)
    assert unlisted.among("Loja 1", ["A1", "B1"]) == {"A1"}
    assert stored.delivered([loja], _NOW - 60).heard == {"Loja 1"}


def test_a_name_in_the_settings_is_known_without_a_list(
    store: EventStore, url: sa.URL, clock: DayClock, tmp_path: Path
) -> None:
    file = tmp_path / "gateways.yaml"
    named = "{name: Loja 1, secret: not-a-real-token, id: ABCDEF-12345}"
    file.write_text(
        f"gateways: [{{name: wpp, type: whapi, messages: events, channels: [{named}]}}]"
    )
    stored = url.render_as_string(hide_password=False)
    settings = parse({"GATEWAYS_FILE": str(file), "MESSAGES_STATE_URL": stored})
    exporter = Exporter(store, clock)
    exporter.take(message(_NOW - 5, "ABCDEF-12345"))
    exporter.poll(replace(_LOJA, alias="ABCDEF-12345"))

    def listed() -> Collection[Channel]:
        raise MessageLogError("requests_per_month leaves no request for now")

    source = open_source(settings, settings.gateways[0], listed, clock=clock)
    assert source is not None
    with closing(source):
        assert source.recent(60).ages == {"Loja 1": 5}


def test_rows_of_a_checkout_whose_keys_were_folded_go_on(
    store: EventStore, clock: DayClock
) -> None:
    last = {"loja1": Last(_NOW - 5, 0, _NOW - 5)}
    minutes = {("loja1", int(_NOW // 3600)): Minutes(1, 1)}
    store.write({"wpp": Batch(last, minutes, ids={("loja1", "A1")})}, _NOW)
    stored = StoredMessages(store, "wpp", lambda: [_LOJA], clock=clock)
    assert stored.poll([_LOJA]).age(_LOJA.key) == 5
    assert stored.recent(60).ages == {_LOJA.key: 5}
    assert stored.delivered([_LOJA], _NOW - 60).among(_LOJA.key, ["A1", "B1"]) == {"A1"}
    assert stored.histories({_LOJA.key}, lambda: None)[_LOJA.key].messages == 1


def test_late_and_repeated_messages_move_no_clock_back(store: EventStore, clock: DayClock) -> None:
    exporter = Exporter(store, clock)
    exporter.take(message(_NOW - 5, id_="a"), message(_NOW - 500, id_="b"))
    assert exporter.poll().age("Loja 1") == 5
    exporter.take(message(_NOW - 500, id_="b"), message(_NOW - 900, id_="c"))
    view = exporter.poll()
    assert view.age("Loja 1") == 5
    assert view.messages == {("Loja 1", Direction.IN): 3}
    assert view.rows_read == 4
    exporter.take(message(), message())
    assert exporter.poll().messages == {("Loja 1", Direction.IN): 5}, "without an id each counts"


def test_a_late_backlog_counts_from_when_it_came_and_once(
    store: EventStore, clock: DayClock
) -> None:
    exporter = Exporter(store, clock)
    five_hours = [message(_NOW - 18_000 + n, id_=str(n)) for n in range(5)]
    exporter.take(*five_hours)
    view = exporter.poll()
    assert view.age("Loja 1") == view.heard_age("Loja 1") == 0
    assert StoredMessages(store, "wpp", clock=clock).recent(30).ages == {"Loja 1": 0}
    assert view.messages == {("Loja 1", Direction.IN): 5}
    # One learns from it when the channel was busy, not when the backlog came.
    assert {hour for _, hour, _ in store.minutes("wpp", 0)} == {int((_NOW - 18_000) // 3600)}
    clock.now += 25
    exporter.take(*five_hours)
    assert exporter.poll().age("Loja 1") == 25, "what is repeated shows nothing"
    # What a gateway may have tried to deliver since is as old as it says.
    exporter.take(message(_NOW - 900, key="other"))
    assert exporter.poll().age("other") == 925


def test_what_cannot_be_decrypted_is_counted_apart_and_may_come_again(
    store: EventStore, clock: DayClock
) -> None:
    exporter = Exporter(store, clock)
    exporter.poll()
    exporter.take(*[message(id_="a", readable=False)] * 2, message(key="stray", readable=False))
    view = exporter.poll()
    assert view.undecryptable == {"Loja 1": 1}
    assert (view.age("Loja 1"), view.messages) == (None, {})
    exporter.take(message(id_="a"))
    view = exporter.poll()
    assert (view.age("Loja 1"), view.messages) == (0, {("Loja 1", Direction.IN): 1})
    assert exporter.poll(_OTHER).undecryptable == {}, "it left the list"


def test_whether_the_list_lacks_a_channel_is_known_once_there_is_a_list(
    store: EventStore, clock: DayClock
) -> None:
    inbox = Inbox(store, ["wpp"], clock=clock)
    assert not inbox.take("wpp", message(key="loja2"))
    inbox.list_channels("wpp", [_LOJA])
    assert inbox.take("wpp", message(key="loja2"))
    assert not inbox.take("wpp", message())


def test_the_time_in_which_nobody_took_events_does_not_count(
    store: EventStore, clock: DayClock
) -> None:
    exporter = Exporter(store, clock)
    exporter.take(message(_NOW - 100))
    exporter.poll()
    clock.now += 7200
    restarted = Exporter(store, clock)
    view = restarted.poll()
    assert view.now == _NOW + 7200
    assert view.last_message["Loja 1"] == _NOW - 100
    assert view.age("Loja 1") == 100
    clock.now += 20
    assert restarted.poll().age("Loja 1") == 120
    restarted.take(message(clock.now))
    assert restarted.poll().age("Loja 1") == 0
    # A restart of seconds is no outage.
    clock.now += store_module.GAP_AFTER - 1
    assert Exporter(store, clock).poll().age("Loja 1") == store_module.GAP_AFTER - 1


def test_an_outage_before_the_last_message_counts_for_nothing(
    store: EventStore, clock: DayClock
) -> None:
    exporter = Exporter(store, clock)
    exporter.poll()
    clock.now += 1000
    exporter.poll()
    clock.now += 25
    exporter.take(message(clock.now - 5), message(_NOW + 400, key="other"))
    view = exporter.poll()
    assert view.age("Loja 1") == 5
    # One that is from the middle of the outage, and was delivered after it.
    assert view.age("other") == 25


def test_an_echo_moves_the_clock_is_no_traffic_and_is_remembered_for_a_day(
    store: EventStore, clock: DayClock
) -> None:
    exporter = Exporter(store, clock)
    token = make_token("Loja 1")
    exporter.take(message(_NOW - 5, echo=token), message(_NOW - 4, echo=token))
    exporter.take(message(key="nobody", echo=make_token("nobody")))
    view = exporter.poll()
    assert view.age("Loja 1") == view.heard_age("Loja 1") == 4
    assert view.messages == {}
    assert list(store.minutes("wpp", 0)) == [], "nothing is learned from it"
    source = StoredMessages(store, "wpp", clock=clock)
    assert source.recent(60) == RecentMessages({"Loja 1": 4.0}, {token})
    assert source.recent(3).ages == {}
    assert StoredMessages(store, "another", clock=clock).recent(60) == RecentMessages()
    clock.now += 86_400 + 60
    exporter.poll()
    assert source.recent(60).echoes == set()
    store.prune(clock.now)
    assert store.echoes("wpp", 0) == set()


def test_recent_messages_are_incomplete_while_no_exporter_takes_events(
    store: EventStore, clock: DayClock
) -> None:
    source = StoredMessages(store, "wpp", clock=clock)

    def fails(call: Callable[[], object]) -> None:
        with pytest.raises(MessageLogError, match="does not run"):
            call()

    assert "does not run" in source.recent(60).gap
    fails(lambda: source.poll([_LOJA]))
    exporter = Exporter(store, clock)
    exporter.take(message())
    exporter.poll()
    assert source.recent(60) == RecentMessages({"Loja 1": 0})
    clock.now += store_module.GAP_AFTER + 1
    assert source.recent(60).ages == {"Loja 1": store_module.GAP_AFTER + 1}
    assert "does not run" in source.recent(60).gap
    clock.now = _NOW + 299
    assert source.find([_LOJA]).age("Loja 1") == 0
    clock.now += 2
    fails(lambda: source.poll([_LOJA]))
    assert source.recent(60).ages == {}


def test_two_exporters_on_one_store_know_what_either_has_taken(
    url: sa.URL, opened: Opened, clock: DayClock
) -> None:
    here, there = Exporter(opened(url), clock), Exporter(opened(url), clock)
    here.poll()
    there.take(message(_NOW - 7))
    there.poll()
    assert here.poll().age("Loja 1") == 7
    # While one of them runs, there is no gap.
    for _ in range(4):
        clock.now += 25
        there.poll()
    assert here.poll().age("Loja 1") == 107


def test_two_exporters_whose_clocks_differ_by_a_minute_miss_nothing(
    store: EventStore, clock: DayClock
) -> None:
    slow = DayClock()
    slow.now -= 60
    exporters = Exporter(store, clock), Exporter(store, slow)
    exporters[0].take(message())
    for _ in range(5):
        ages = [one.poll().age("Loja 1") for one in exporters]
        clock.now += 25
        slow.now += 25
    assert ages == [100, 40]


def test_a_clock_that_was_put_back_forgets_its_future(store: EventStore, clock: DayClock) -> None:
    clock.now += 86_400
    exporter = Exporter(store, clock)
    exporter.take(message(clock.now))
    exporter.poll()
    clock.now = _NOW
    assert exporter.poll().age("Loja 1") == 0
    clock.now += 10
    assert exporter.poll().age("Loja 1") == 10
    exporter.take(message(clock.now))
    clock.now += 1
    assert exporter.poll().age("Loja 1") == 1
    assert store.activity("wpp").receiver_gaps(clock.now) == ()


def test_a_clock_that_jumps_ahead_makes_no_channel_silent(
    store: EventStore, clock: DayClock
) -> None:
    exporter = Exporter(store, clock)
    exporter.take(message())
    exporter.poll()
    clock.now += 86_400
    assert exporter.poll().age("Loja 1") == 0


class _BootClock(DayClock):
    """A clock of a machine that has just started, for less than an hour in any case."""

    uptime = 60.0

    def monotonic(self) -> float:
        return self.uptime

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.uptime = min(self.uptime + 6, 3500)
        return event.wait(seconds / 20)


@pytest.mark.parametrize("wrong", [730 * 86_400.0, -_NOW + 60], ids=["ahead", "1970"])
def test_a_wrong_clock_at_the_machines_start_deletes_nothing(
    store: EventStore, wrong: float
) -> None:
    hour = int(_NOW // 3600)
    minutes = {("Loja 1", hour): Minutes(1, 1)}
    batch = Batch({"Loja 1": Last(5, 0, 5)}, minutes, ids={("Loja 1", "A")})
    store.write({"wpp": batch}, _NOW)
    clock = _BootClock()
    inbox = Inbox(store, ["wpp"], clock=clock)
    inbox.start()
    for clock.now in (_NOW + wrong, _NOW + 120):
        wait_until(lambda: store.activity("wpp").heartbeat == clock.now, "a heartbeat")
    inbox.close()
    assert store.activity("wpp").last.keys() == {"Loja 1"}
    assert list(store.minutes("wpp", 0)) == [("Loja 1", hour, Minutes(1, 1))]
    assert store.arrived("wpp", "Loja 1", {"A"}) == {"A"}


def test_channels_that_no_list_names_stay_out_of_the_store(
    store: EventStore, clock: DayClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "_MOST_UNLISTED", 10)
    exporter = Exporter(store, clock)
    exporter.poll(_LOJA)
    exporter.take(*(message(key=f"stray{number}") for number in range(1000)))
    exporter.take(message())
    assert exporter.poll(_LOJA).age("Loja 1") == 0
    assert store.activity("wpp").last.keys() == {"Loja 1"}
    # Those that came first are remembered until the list names them.
    stray = Channel("stray9", Status.CONNECTED)
    assert exporter.poll(stray).age("stray9") == 0
    assert exporter.poll(stray).messages["stray9", Direction.IN] == 1
    assert Exporter(store, clock).poll(Channel("stray10", Status.CONNECTED)).age("stray10") is None


def test_gateways_do_not_mix(store: EventStore, clock: DayClock) -> None:
    inbox = Inbox(store, ["a", "b"], clock=clock)
    inbox.list_channels("a", [_LOJA])
    inbox.list_channels("b", [_LOJA])
    inbox.take("a", message(_NOW - 3))
    inbox.write()
    assert store.activity("a").last == {"Loja 1": Last(_NOW - 3, 0, _NOW - 3)}
    assert store.activity("b").last == {}


def test_the_store_counts_minutes_and_joins_what_it_has(store: EventStore) -> None:
    hour = int(_NOW // 3600)
    first = Batch({"Loja 1": Last(5, 0, 5)}, {("Loja 1", hour): Minutes(0b101, 2)})
    second = Batch({"Loja 1": Last(3, 4, 3)}, {("Loja 1", hour): Minutes(1 << 59, 1)})
    store.write({"wpp": first}, _NOW)
    store.write({"wpp": second}, _NOW)
    assert store.activity("wpp").last == {"Loja 1": Last(5, 4, 5)}
    assert list(store.minutes("wpp", hour)) == [("Loja 1", hour, Minutes((1 << 59) + 0b101, 3))]
    assert list(store.minutes("wpp", hour + 1)) == []


def test_keys_that_look_alike_stay_apart(store: EventStore) -> None:
    last = {key: Last(5, 0, 5) for key in ("josé", "jose", "loja ")}
    store.write({"wpp": Batch(last)}, _NOW)
    assert store.activity("wpp").last.keys() == {"josé", "jose", "loja "}


def test_what_is_old_is_forgotten(store: EventStore) -> None:
    hour = int(_NOW // 3600)
    old = Batch({"old": Last(1, 1, 1)}, {("old", hour): Minutes(1, 1)})
    new = Batch({"new": Last(2, 2, 2)}, {("new", hour + 91 * 24): Minutes(1, 1)})
    later = _NOW + 91 * 86_400
    store.write({"wpp": old}, _NOW)
    store.write({"wpp": new}, later)
    assert store.activity("wpp").receiver_gaps(later) == ((_NOW, later),)
    store.prune(later)
    assert store.activity("wpp").last.keys() == {"new"}
    assert [one[0] for one in store.minutes("wpp", 0)] == ["new"]
    assert store.activity("wpp").receiver_gaps(later) == ((_NOW, later),)
    store.prune(later + 91 * 86_400)
    assert store.activity("wpp").receiver_gaps(later) == ()


def test_years_without_an_id_take_no_time_to_forget(store: EventStore) -> None:
    """As after a start with the clock at 1970."""
    for at, id_ in ((0.0, "A"), (_NOW - 8 * 86_400, "B"), (_NOW, "C")):
        store.write({"wpp": Batch(ids={("Loja 1", id_)})}, at)
    deleted: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("DELETE FROM arrived_ids"):
            deleted.append(statement)
            assert len(deleted) <= 2

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        store.prune(_NOW)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)
    assert store.arrived("wpp", "Loja 1", {"A", "B", "C"}) == {"C"}


def test_nothing_is_kept_but_channel_direction_and_time() -> None:
    columns = {column.name: column.type for table in metadata.tables.values() for column in table.c}
    texts = {name for name, kind in columns.items() if isinstance(kind, sa.String)}
    assert texts == {"gateway", "channel", "token", "key"}, "the last two are made up"


def test_stores_that_are_opened_at_once_make_the_tables_once(url: sa.URL, opened: Opened) -> None:
    stores = [opened(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: one.write({"wpp": Batch({"a": Last(1, 1, 1)})}, _NOW), stores))
    assert stores[0].activity("wpp").last == {"a": Last(1, 1, 1)}


def test_a_table_that_another_store_is_making_on_mysql_is_waited_for(
    database: sa.URL, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Cursor.execute
    refused: list[str] = []

    def fails(cursor: Cursor, query: str, args: object = None) -> int:
        if "CREATE TABLE" in query and len(refused) < 3:
            refused.append(query)
            words = "definition is being modified by concurrent DDL statement"
            raise OperationalError(1684, f"Table 'a'.'b' was skipped since its {words}")
        return execute(cursor, query, args)

    monkeypatch.setattr(Cursor, "execute", fails)
    store = opened(database)
    store.write({"wpp": Batch({"a": Last(1, 1, 1)})}, _NOW)
    assert store.activity("wpp").last == {"a": Last(1, 1, 1)}
    assert len(refused) == 3


def test_messages_that_cannot_be_written_wait(
    url: sa.URL, store: EventStore, clock: DayClock
) -> None:
    exporter = Exporter(store, clock)
    exporter.poll()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE message_hours RENAME TO gone"))
    token = make_token("Loja 1")
    exporter.take(message(_NOW - 4), message(_NOW - 4, echo=token))
    with pytest.raises(MessageLogError):
        exporter.poll()
    exporter.take(message(_NOW - 2))
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE gone RENAME TO message_hours"))
    engine.dispose()
    assert exporter.poll().age("Loja 1") == 2
    [(_, _, minutes)] = store.minutes("wpp", 0)
    assert minutes.messages == 2
    assert store.echoes("wpp", 0) == {token}


def test_only_one_may_read_the_file_and_a_reader_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "var" / "messages.sqlite3"
    reader = EventStore(sa.make_url(f"sqlite:///{path}"), read_only=True)
    for read in (reader.activity, lambda name: StoredMessages(reader, name).recent(60)):
        with pytest.raises(MessageLogError, match=r"there is no .*messages.sqlite3 yet"):
            read("wpp")
    assert list(tmp_path.iterdir()) == []
    store = EventStore(sa.make_url(f"sqlite:///{path}"))
    store.write({"wpp": Batch({"a": Last(1, 1, 1)})}, _NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert reader.activity("wpp").last == {"a": Last(1, 1, 1)}
    with pytest.raises(MessageLogError, match="readonly"):
        reader.write({}, _NOW + 1)
    store.close()
    reader.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = EventStore(sa.make_url(f"sqlite:///{tmp_path}/file/messages.sqlite3"))
    with pytest.raises(MessageLogError, match="file: "):
        store.write({}, _NOW)
    store.close()
