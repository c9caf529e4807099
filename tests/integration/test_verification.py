"""What proves that the repair of a channel that was silent has worked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconnect_hook.outcomes import FAILURES, Outcome
from reconnect_hook.repairs import asking
from reconnect_hook.repairs.asking import ask
from reconnect_hook.repairs.channel_lists import ChannelLists
from reconnect_hook.repairs.means import Means
from reconnect_hook.state import probes
from reconnect_hook.state.probes import ProbeOutcome
from tests.support.message_logs import WrittenLog
from tests.support.probing import World, shorten_waits, world_of
from whatsapp.probe_settings import ProbeKind


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_waits(monkeypatch)
    monkeypatch.setattr(asking, "LOOK_PAUSE", 0.05)
    monkeypatch.setattr(asking, "_PROBE_AFTER", 0.1)
    monkeypatch.setattr(asking, "_INITIALIZING_PAUSE", 0.05)


@pytest.fixture
def world(tmp_path: Path, sqlite_log: WrittenLog) -> Iterator[World]:
    with world_of(tmp_path, sqlite_log) as made:
        yield made


def _means(world: World, **more: Any) -> Means:
    client = world.means.client
    return Means(
        client,
        ChannelLists(client),
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
    monkeypatch.setattr(probes, "ECHO_GAP_SECONDS", 1.0)
    assert world.book.reserve("obra", "casa", "a-token-of-another-probe") is None
    assert _repaired(world) == Outcome.RECONNECTED
    assert len(world.sent()) == 1


def test_an_echo_waits_for_no_longer_than_a_repair_may_take(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "ECHO_GAP_SECONDS", 600.0)
    assert world.book.reserve("obra", "casa", "a-token-of-another-probe") is None
    assert _repaired(world, seconds=0.3) == Outcome.REQUESTED
    assert world.sent() == []
