"""Probes of a simulated gateway's channels, by query and by echo, and who is found to be dead."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import NoneType

import pytest
import sqlalchemy as sa

from demo.simulator.apis.registry import APIS
from reconnect_hook import probe_limits
from reconnect_hook.echo import PostponedError, UnableError
from reconnect_hook.models import ProbeOutcome
from reconnect_hook.probe import ProbeRun
from reconnect_hook.probe_limits import LimitReason, ProbeRepository
from reconnect_hook.repository import add_gateways
from reconnect_hook.schema import open_state
from tests.support.message_logs import WrittenLog
from tests.support.probing import CHANNELS, SECRET, World, hear_by_events, shorten_waits, world_of
from tests.support.threads import at_once
from zapwatch.channels import ByName
from zapwatch.config import parse
from zapwatch.config.readers import ProbeKind
from zapwatch.gateways import NAMED_CHANNELS
from zapwatch.gateways.registry import make_gateway
from zapwatch.messages.channel_list import Activity
from zapwatch.messages.event_store import StoredMessages
from zapwatch.messages.message import MessageLogError, RecentMessages, make_token
from zapwatch.messages.source import LogMessages, open_source


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_waits(monkeypatch)


@pytest.fixture
def world(tmp_path: Path, sqlite_log: WrittenLog) -> Iterator[World]:
    with world_of(tmp_path, sqlite_log) as made:
        yield made


@pytest.mark.parametrize("names", [("loja", "obra"), CHANNELS])
def test_who_no_longer_hears_is_found_and_nobody_else(
    tmp_path: Path, sqlite_log: WrittenLog, names: tuple[str, ...]
) -> None:
    with world_of(tmp_path, sqlite_log, "wrapper", *names) as world:
        world.simulator.deafen("loja")
        assert world.found() == (ProbeOutcome.FAILED, ["loja"])


def test_a_dead_channel_is_told_from_its_sender_by_a_third(world: World) -> None:
    world.simulator.zombie("loja")
    assert world.found() == (ProbeOutcome.FAILED, ["loja"])
    assert len(world.sent()) <= 4


def test_a_dead_sender_is_found_and_not_the_quiet_channel(world: World) -> None:
    world.log.write("casa", age_seconds=20)
    world.log.write("obra", age_seconds=700)
    world.simulator.zombie("casa")
    outcome, dead = world.found()
    assert world.sent()[0] == "casa", "who was heard last writes first"
    assert (outcome, dead) == (ProbeOutcome.OTHER_FAILED, ["casa"])
    assert world.simulator.requests("qr") == []


def test_a_dead_sender_stops_no_echoes_but_its_own(tmp_path: Path, sqlite_log: WrittenLog) -> None:
    with world_of(tmp_path, sqlite_log, "wppconnect", "loja", "obra") as world:
        world.simulator.zombie("obra")
        assert world.found() == (ProbeOutcome.OTHER_FAILED, ["obra"])
        assert world.book.suspended() == {"obra"}


def test_of_two_that_are_both_quiet_nobody_is_blamed_unproved(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    with world_of(tmp_path, sqlite_log, "wrapper", "loja", "obra") as world:
        world.simulator.zombie("loja")
        assert world.found() == (ProbeOutcome.UNDECIDED, [])
        sent = len(world.sent())
        with pytest.raises(UnableError):
            world.probe()
        assert len(world.sent()) == sent, "no more echoes until it has been repaired"
        world.book.resume(["loja"])
        world.simulator.connect("loja")
        assert world.found() == (ProbeOutcome.PASSED, [])


@pytest.mark.parametrize(
    ("happens", "found"),
    [("zombie", (ProbeOutcome.FAILED, ["loja"])), ("connect", (ProbeOutcome.PASSED, []))],
)
def test_what_is_heard_after_a_lost_echo_needs_one_more_echo_to_count(
    tmp_path: Path,
    sqlite_log: WrittenLog,
    monkeypatch: pytest.MonkeyPatch,
    happens: str,
    found: tuple[ProbeOutcome, list[str]],
) -> None:
    # Longer than what the log's times are cut by.
    monkeypatch.setattr("reconnect_hook.echo.ECHO_SECONDS", 2.0)
    with world_of(tmp_path, sqlite_log, "wrapper", "loja", "obra") as world:
        world.simulator.zombie("loja")
        world.simulator.fault("send", "unauthorized", channel="loja")
        assert world.found() == (ProbeOutcome.UNDECIDED, [])
        world.log.write("obra")
        monkeypatch.setattr(probe_limits, "ECHO_GAP_SECONDS", 60.0)
        with pytest.raises(PostponedError):
            world.probe()
        monkeypatch.setattr(probe_limits, "ECHO_GAP_SECONDS", 0.0)
        world.simulator.fault("send", "unauthorized", channel="obra")
        with pytest.raises(UnableError, match="did not confirm the echo"):
            world.probe()
        world.simulator.clear_faults()
        getattr(world.simulator, happens)("loja")
        assert world.found() == found


@pytest.mark.parametrize("api", ["wppconnect", "evolution", "waha"])
def test_gateways_that_know_their_numbers_need_none_set(
    tmp_path: Path, sqlite_log: WrittenLog, api: str
) -> None:
    with world_of(tmp_path, sqlite_log, api, set_numbers=False) as world:
        listed = world.means.client.list_channels().channels
        assert {world.means.kind_of(one) for one in listed} == {ProbeKind.ECHO}
        assert world.found() == (ProbeOutcome.PASSED, [])
        assert world.sent() != ["loja"], "another one has written"
        (sent,) = world.simulator.requests("take_back")
        assert sent["channel"] == world.sent()[0]
        world.simulator.deafen("loja")
        assert world.found() == (ProbeOutcome.FAILED, ["loja"])
        assert world.gateway.still_there() == [], "what was lost is taken back too"
        world.book.resume(["loja"])
        world.simulator.zombie("loja")
        sent_before = world.sent()
        finding = world.probe()
        assert (finding.kind, finding.outcome) == (ProbeKind.QUERY, ProbeOutcome.FAILED)
        assert world.sent() == sent_before, "two queries that fail are proof enough"


@pytest.mark.parametrize("api", sorted(APIS.keys() - NAMED_CHANNELS))
def test_echoes_are_heard_in_events_too(tmp_path: Path, sqlite_log: WrittenLog, api: str) -> None:
    with world_of(tmp_path, sqlite_log, api) as world:
        hear_by_events(world, sa.URL.create("sqlite", database=str(tmp_path / "events.sqlite3")))
        assert world.found() == (ProbeOutcome.PASSED, [])
        sqlite_log.purge()  # nobody looks there
        world.simulator.deafen("loja")
        assert world.found() == (ProbeOutcome.FAILED, ["loja"])
        assert len(world.sent()) == 3, "one was heard, one was lost, and one came back"


@pytest.mark.parametrize(
    ("source", "kind", "has_echoes"),
    [
        ({"MESSAGE_LOG_URL": "sqlite:///unused"}, LogMessages, True),
        (
            {"MESSAGE_SOURCE": "events", "MESSAGES_TOKEN": "not-a-real-token-of-messages"},
            StoredMessages,
            True,
        ),
        ({"MESSAGE_SOURCE": "activity"}, Activity, False),
        ({"MESSAGE_LOG_URL": "none"}, NoneType, False),
    ],
)
def test_where_echoes_are_heard_depends_on_where_messages_come_from(
    source: dict[str, str], kind: type, *, has_echoes: bool
) -> None:
    url = "https://gateway.example.com:8443"
    values = {"WPP_GATEWAY_BASE_URL": url, "WPP_GATEWAY_SECRET": SECRET, **source}
    settings = parse(values)
    [gateway] = settings.gateways
    assert gateway.messages.has_echoes is has_echoes
    made = open_source(settings, gateway)
    assert type(made) is kind
    if made is not None:
        made.close()


def test_a_number_that_is_set_counts_more_than_what_the_gateway_tells(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    with world_of(tmp_path, sqlite_log, "wppconnect") as world:
        world.gateway.at("loja", lambda one, _: setattr(one, "number", "5500000000999"), None)
        loja = next(c for c in world.means.client.list_channels().channels if c.id == "loja")
        assert world.means.number_of(loja) == world.numbers["loja"]
        untold = replace(world.means.settings, echo_numbers=ByName({}))
        assert replace(world.means, settings=untold).number_of(loja) == "5500000000999"


def test_who_does_not_tell_its_number_is_written_nothing(
    tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_of(tmp_path, sqlite_log, "wppconnect", set_numbers=False) as world:
        # The query asks for the number too.
        monkeypatch.setattr(world.means.client, "query", lambda _: None)
        world.simulator.fault("number", "http_500_json")
        with pytest.raises(UnableError, match="does not report it"):
            world.probe()
        assert world.sent() == []


def test_two_sessions_of_one_number_write_each_other_nothing(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    """It would be a message to oneself, which not every gateway reports."""
    with world_of(tmp_path, sqlite_log, "wppconnect", set_numbers=False) as world:
        number = world.numbers["loja"]
        world.gateway.at("obra", lambda one, _: setattr(one, "number", number), None)
        assert world.found() == (ProbeOutcome.PASSED, [])
        world.gateway.at("casa", lambda one, _: setattr(one, "number", number), None)
        with pytest.raises(UnableError, match="the same number"):
            world.probe()
        assert world.sent() == ["casa"]


@pytest.mark.parametrize(
    ("fault", "operations"), [("reset", ["query"]), ("html_502", ["query", "list"])]
)
def test_a_gateway_that_cannot_be_reached_says_nothing_of_its_channels(
    tmp_path: Path, sqlite_log: WrittenLog, fault: str, operations: list[str]
) -> None:
    with world_of(tmp_path, sqlite_log, "wppconnect") as world:
        listed = world.listed()
        run = ProbeRun(world.means, listed["loja"], listed, query_failed=True)
        for operation in operations:
            world.simulator.fault(operation, fault)
        with pytest.raises(UnableError, match="cannot be reached"):
            run.run(ProbeKind.QUERY)
        if "list" in operations:  # then the query alone fails, and the gateway can be reached
            world.simulator.clear_faults("list")
            assert run.run(ProbeKind.QUERY).outcome == ProbeOutcome.FAILED


def test_a_log_that_fails_while_an_echo_is_listened_for_gets_nobody_blamed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.simulator.deafen("loja")
    messages = world.means.messages
    assert messages is not None
    recent = messages.recent

    def fails(_seconds: float) -> RecentMessages:
        raise MessageLogError("gone away")

    def wait(_seconds: float) -> None:
        monkeypatch.setattr(messages, "recent", fails)

    world.means = replace(world.means, wait=wait)
    with pytest.raises(MessageLogError):
        world.probe()
    monkeypatch.setattr(messages, "recent", recent)
    # It was well all the time: the log lacks the echo.
    world.simulator.connect("loja")
    world.means = replace(world.means, wait=lambda _: time.sleep(0.02))
    assert world.found(resumes=True) == (ProbeOutcome.PASSED, [])
    first, again = world.sent()
    assert first == again


# One of each kind of failure.
@pytest.mark.parametrize(
    "fault", ["success_false_text", "html_504", "http_500_json", "reset", "hang"]
)
def test_a_text_that_was_sent_although_the_call_failed_is_heard_and_not_sent_again(
    world: World, fault: str
) -> None:
    world.simulator.fault("send", fault, effect=True)
    hasty = replace(world.settings, qr_timeout=0.5 if fault == "hang" else 20)
    world.means = replace(world.means, client=make_gateway(hasty, observe=lambda *_: None))
    assert world.found() == (ProbeOutcome.PASSED, [])
    assert len(world.sent()) == 1


def test_a_refused_text_that_goes_a_moment_later_is_heard(world: World) -> None:
    world.simulator.fault("send", "success_false_text")

    def wait(_seconds: float) -> None:
        for echo in world.book.earlier_echoes("loja"):
            world.log.write("loja", words=echo.token)

    world.means = replace(world.means, wait=wait)
    assert world.found() == (ProbeOutcome.PASSED, [])
    assert len(world.sent()) == 1


@pytest.mark.parametrize("fault", ["success_false_text", "unauthorized"])
def test_what_was_not_sent_is_not_lost(tmp_path: Path, sqlite_log: WrittenLog, fault: str) -> None:
    with world_of(tmp_path, sqlite_log, "wrapper", "loja", "obra") as world:
        world.log.write("obra")
        world.simulator.fault("send", fault)
        with pytest.raises(UnableError, match="did not confirm the echo"):
            world.probe()
        assert world.book.lost_echoes("loja", 600) == []
        assert world.book.suspended() == set()
        world.simulator.clear_faults()
        assert world.found() == (ProbeOutcome.PASSED, []), "and it is asked again"


def test_who_hears_but_cannot_send_gets_nobody_else_blamed(world: World) -> None:
    world.simulator.fault("send", "success_false_text", channel="obra")
    world.simulator.fault("send", "success_false_text", channel="casa")
    with pytest.raises(UnableError, match="did not confirm the echo"):
        world.probe()
    assert [name for name in world.sent() if name == "loja"] == ["loja"], "that one was heard"


def test_a_channel_that_is_alone_is_not_blamed_for_what_its_gateway_never_reports(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    with world_of(tmp_path, sqlite_log, "wrapper", "loja") as world:
        # The simulator reports the copy that arrives; a gateway that does not is like a deaf one.
        world.simulator.deafen("loja")
        assert world.found() == (ProbeOutcome.UNDECIDED, [])
        world.book.resume(["loja"])
        world.simulator.connect("loja")
        assert world.found() == (ProbeOutcome.PASSED, [])
        world.book.end("loja", ProbeKind.ECHO, ProbeOutcome.PASSED)
        world.simulator.fault("send", "html_504")
        with pytest.raises(UnableError):
            world.probe()
        world.simulator.clear_faults()
        world.simulator.deafen("loja")
        assert world.found() == (ProbeOutcome.FAILED, ["loja"])


def test_what_others_wrote_does_not_show_that_a_channel_hears_itself(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    with world_of(tmp_path, sqlite_log, "wrapper", "loja", "obra") as world:
        assert world.found() == (ProbeOutcome.PASSED, [])
        assert world.sent() == ["obra"]
        world.simulator.drop("obra")
        # Like a gateway that reports no messages to oneself.
        world.simulator.deafen("loja")
        assert world.found() == (ProbeOutcome.UNDECIDED, [])
        assert world.sent() == ["obra", "loja"]


def test_a_message_that_comes_by_itself_does_not_show_that_a_channel_hears_itself(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    with world_of(tmp_path, sqlite_log, "wrapper", "loja") as world:
        world.simulator.deafen("loja")
        patient = world.means

        def wait(seconds: float) -> None:
            # The log's times are cut to whole seconds.
            time.sleep(1.1)
            world.log.write("loja")

        world.means = replace(patient, wait=wait)
        assert world.found() == (ProbeOutcome.PASSED, [])
        world.means = patient
        assert world.found() == (ProbeOutcome.UNDECIDED, [])


def test_no_echo_goes_where_none_may(world: World) -> None:
    off = ByName({"obra": ProbeKind.OFF, "casa": ProbeKind.QUERY})
    world.means = replace(world.means, settings=replace(world.means.settings, overrides=off))
    world.probe()
    assert set(world.sent()) <= {"loja"}, "who takes no part writes to nobody"


def test_who_can_be_asked_depends_on_settings_and_gateway(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    for api, by_query in (("wrapper", False), ("waha", True)):
        folder = tmp_path / api
        folder.mkdir()
        with world_of(folder, sqlite_log, api) as made:
            loja = made.listed()["loja"]
            assert made.means.can_ask(loja)
            assert not replace(made.means, messages=None).can_ask(loja) or by_query
            for kind, can in ((ProbeKind.QUERY, by_query), (ProbeKind.OFF, False)):
                settings = replace(made.means.settings, overrides=ByName({"loja": kind}))
                assert replace(made.means, settings=settings).can_ask(loja) is can


def test_the_bounds_stop_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_limits, "ECHO_GAP_SECONDS", 3600.0)
    assert world.found() == (ProbeOutcome.PASSED, [])
    with pytest.raises(PostponedError):
        world.probe()
    assert len(world.sent()) == 1


@pytest.fixture
def books(database: sa.URL) -> Iterator[list[ProbeRepository]]:
    settings = parse(
        {
            "WPP_GATEWAY_BASE_URL": "https://gateway.example.com:8443",
            "WPP_GATEWAY_SECRET": SECRET,
            "MESSAGE_LOG_URL": "none",
            "PROBE_ECHOES_PER_DAY": "5",
        }
    ).gateways[0]
    states = [open_state(database) for _ in range(2)]
    add_gateways(states[0], ["wpp"])
    yield [ProbeRepository(one, "wpp", settings.probe) for one in states]
    for one in states:
        one.close()


def test_two_hooks_at_once_send_no_more_than_one_may(books: list[ProbeRepository]) -> None:
    def send(book: ProbeRepository) -> list[bool]:
        return [book.reserve("obra", "loja", make_token("loja")) is None for _ in range(10)]

    allowed = itertools.chain(*at_once(*[partial(send, one) for one in books]))
    assert sorted(allowed) == [False] * 15 + [True] * 5


def test_an_echo_waits_for_one_that_another_hook_reserves_meanwhile(
    books: list[ProbeRepository], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_limits, "ECHO_GAP_SECONDS", 3600.0)
    first, second = books

    reserved: list[LimitReason | None] = []

    def reserve_first(*event: object) -> None:
        if str(event[2]).startswith("UPDATE") and not reserved:
            reserved.append(first.reserve("casa", "praia", make_token("praia")))

    sa.event.listen(second._database._engine, "before_cursor_execute", reserve_first)
    assert second.reserve("obra", "loja", make_token("loja")) is LimitReason.TOO_SOON
    assert reserved == [None]
