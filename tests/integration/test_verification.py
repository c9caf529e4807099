"""What proves that the repair of a channel that was silent has worked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from reconnect_hook.channel_list_cache import ChannelListCache
from reconnect_hook.queue import Jobs
from reconnect_hook.repair import ask

from reconnect_hook import probe_limits, repair
from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.alerts import RepairCause
from reconnect_hook.backoff import Backoff
from reconnect_hook.context import RepairContext, UnableError
from reconnect_hook.models import FAILURES, Outcome, Result
from reconnect_hook.probe_limits import ProbeOutcome
from reconnect_hook.schema import echoes
from tests.support.message_logs import WrittenLog
from tests.support.probing import World, shorten_waits, world_of
from tests.support.states import firing
from zapwatch.config.gateway import ProbeKind
from zapwatch.messages.probe_token import make_token


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_waits(monkeypatch)
    monkeypatch.setattr(repair, "LOOK_PAUSE", 0.05)
    monkeypatch.setattr(repair, "_INITIALIZING_PAUSE", 0.05)
    monkeypatch.setattr(repair, "_PROBE_AFTER", 0.1)


@pytest.fixture
def world(tmp_path: Path, sqlite_log: WrittenLog) -> Iterator[World]:
    with world_of(tmp_path, sqlite_log) as made:
        yield made


def _means(world: World, **more: Any) -> RepairContext:
    client = world.means.client
    return RepairContext(
        client,
        ChannelListCache(client),
        None,
        silence_threshold=lambda _: 4 * 3600.0,
        allow_restart=False,
        probing=world.means,
        **more,
    )


def _repaired(world: World, name: str = "loja", *, seconds: float = 30.0, **more: Any) -> str:
    channel = {one.id: one for one in world.means.client.list_channels().channels}[name]
    return ask(_means(world, verify_seconds=seconds, **more), channel, silent=True).outcome


def _by_query(world: World) -> World:
    settings = replace(world.means.settings, kind=ProbeKind.QUERY)
    world.means = replace(world.means, settings=settings)
    return world


@pytest.fixture
def queried(tmp_path: Path, sqlite_log: WrittenLog) -> Iterator[World]:
    """Make one with a gateway that has a query, and no echoes."""
    with world_of(tmp_path, sqlite_log, "waha") as made:
        yield _by_query(made)


def test_an_echo_that_is_heard_proves_it(world: World) -> None:
    world.simulator.put_channel("loja", reconnect_seconds=0.0)
    world.simulator.zombie("loja")
    assert _repaired(world) == Outcome.RECONNECTED


def test_a_query_that_passes_proves_less(queried: World) -> None:
    queried.simulator.put_channel("loja", reconnect_seconds=0.0)
    queried.simulator.zombie("loja")
    assert _repaired(queried, seconds=0.3) == Outcome.REQUESTED
    assert queried.sent() == []


def test_who_is_still_dead_has_failed(queried: World) -> None:
    queried.simulator.put_channel("loja", reconnect_seconds=0.0, heals=False)
    queried.simulator.zombie("loja")
    assert _repaired(queried, seconds=0.3) == Outcome.FAILED
    assert Outcome.FAILED in FAILURES, "so the next repair comes, and people after three"


def test_who_still_does_not_hear_has_failed(world: World) -> None:
    world.simulator.put_channel("loja", reconnect_seconds=0.0, heals=False)
    world.simulator.deafen("loja")
    assert _repaired(world) == Outcome.FAILED


def test_what_proves_nothing_leaves_it_requested(world: World) -> None:
    world.simulator.fault("send", "unauthorized")
    assert _repaired(world, seconds=0.3) == Outcome.REQUESTED


def test_the_proof_of_a_repair_counts_as_a_probe(queried: World) -> None:
    queried.simulator.put_channel("loja", reconnect_seconds=0.0)
    counted: list[tuple[Any, ...]] = []
    _repaired(queried, seconds=0.3, count_probe=lambda *one: counted.append(one))
    ((*what, seconds),) = counted
    assert what == ["loja", ProbeKind.QUERY, ProbeOutcome.PASSED]
    assert 0 <= seconds < 30
    probed = queried.book.all()["loja"]
    assert (probed.kind, probed.outcome) == (ProbeKind.QUERY, ProbeOutcome.PASSED)


def test_an_echo_that_must_wait_for_that_of_another_is_sent_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_limits, "ECHO_GAP_SECONDS", 1.0)
    assert world.book.reserve("obra", "casa", "a-token-of-another-probe") is None
    assert _repaired(world) == Outcome.RECONNECTED
    assert len(world.sent()) == 1


def test_an_echo_waits_for_no_longer_than_a_repair_may_take(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_limits, "ECHO_GAP_SECONDS", 600.0)
    assert world.book.reserve("obra", "casa", "a-token-of-another-probe") is None
    assert _repaired(world, seconds=0.3) == Outcome.REQUESTED
    assert world.sent() == []


def test_an_echo_from_before_the_repair_proves_nothing_of_it(world: World) -> None:
    assert world.book.reserve("obra", "loja", make_token("loja")) is None
    assert _repaired(world) == Outcome.RECONNECTED
    assert len(world.sent()) == 1


@pytest.fixture
def _under_repair(world: World) -> Iterator[None]:
    """Have a repair of obra under way, which ends when the test does."""
    pauses = Backoff(300.0)
    jobs = Jobs(world.database, "wpp", pauses)
    AlertWriter(world.database, "wpp", pauses).accept([firing("obra", RepairCause.ECHO_LOST)])
    job = jobs.claim()
    assert job is not None
    yield
    assert jobs.finish(job, Result("obra", Outcome.RECONNECTED))


@pytest.mark.usefixtures("_under_repair")
def test_what_was_lost_before_a_repair_speaks_against_nobody_after_it(world: World) -> None:
    """The sender was dead then, and is heard now: that does not make it the fault of the other."""
    _lose(world, "obra", "loja")
    world.log.write("obra", age_seconds=0)
    with pytest.raises(UnableError, match="repaired meanwhile"):
        world.probe("loja")


def test_what_was_lost_without_a_repair_does_if_it_is_lost_again(world: World) -> None:
    world.simulator.deafen("loja")
    _lose(world, "obra", "loja")
    world.log.write("obra", age_seconds=0)
    assert world.found("loja") == (ProbeOutcome.FAILED, ["loja"])
    assert world.sent() == ["obra"]


def test_who_came_back_by_itself_gets_nobody_else_blamed(world: World) -> None:
    """The sender was dead, and nobody has repaired it."""
    _lose(world, "obra", "loja")
    world.log.write("obra", age_seconds=0)
    assert world.found("loja") == (ProbeOutcome.PASSED, [])
    assert world.sent() == ["obra"]
    assert world.book.halted() == set()


def test_who_was_heard_since_its_echo_was_lost_is_asked_anew(world: World) -> None:
    """It was dead itself, and whoever wrote to it then is only quiet."""
    _lose(world, "obra", "loja")
    world.log.write("loja", age_seconds=0)
    assert world.found("loja") == (ProbeOutcome.PASSED, [])
    assert world.book.halted() == set()


def _lose(world: World, sender: str, receiver: str) -> None:
    """Note an echo that was lost some seconds ago, and that no more are to be sent."""
    channel = {one.id: one for one in world.means.client.list_channels().channels}[receiver]
    token = make_token(receiver)
    assert world.book.reserve(sender, receiver, token) is None
    world.book.note_sent(token, surely=True)
    world.book.note_echo(token, heard=False)
    with world.database.write() as connection:
        connection.execute(sa.update(echoes).values(sent_at=echoes.c.sent_at - 30))
    world.book.end(receiver, receiver, ProbeKind.ECHO, ProbeOutcome.UNDECIDED, [channel])


def test_who_could_not_send_is_proved_by_an_echo_from_whom_it_was_to_write_to(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    with world_of(tmp_path, sqlite_log, "evolution", "loja", "obra") as world:
        world.simulator.put_channel("obra", reconnect_seconds=0.0)
        world.simulator.zombie("obra")
        assert world.probe("loja").outcome == ProbeOutcome.OTHER_FAILED
        assert world.probe("obra").outcome == ProbeOutcome.FAILED
        assert _repaired(world, "obra") == Outcome.RECONNECTED
