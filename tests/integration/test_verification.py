"""What proves that the repair of a channel that was silent has worked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconnect_hook.outcomes import Outcome
from reconnect_hook.repairs import asking
from reconnect_hook.repairs.asking import ask
from reconnect_hook.repairs.channel_lists import ChannelLists
from reconnect_hook.repairs.means import Means
from reconnect_hook.state import probes
from tests.support.message_logs import WrittenLog
from tests.support.probing import World, shorten_waits, world_of


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_waits(monkeypatch)
    monkeypatch.setattr(asking, "LOOK_PAUSE", 0.05)
    monkeypatch.setattr(asking, "_PROBE_AFTER", 0.1)


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


def _repaired(world: World, name: str = "loja", *, seconds: float = 30.0) -> str:
    channel = {one.id: one for one in world.means.client.list_channels().channels}[name]
    return ask(_means(world, verify_seconds=seconds), channel, silent=True).outcome


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
