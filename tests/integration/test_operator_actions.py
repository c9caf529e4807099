"""What people ask for at the page, on both kinds of state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from reconnect_hook.decision import RESTART_AFTER
from reconnect_hook.history import episodes
from reconnect_hook.models import Intent, Phase, RepairCause
from tests.support.world import GATEWAY, Options, World
from zapwatch.channels import Status
from zapwatch.gateways.base import QrKind


@pytest.fixture(params=["sqlite", "mariadb"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    url = request.getfixturevalue("database") if request.param == "mariadb" else None
    made = World(tmp_path, url=url)
    made.put("loja", Status.DISCONNECTED)
    yield made
    made.close()


def _brings_back(world: World) -> None:
    world.gateway.on_call = lambda _call, name: world.put(name)


def test_nothing_is_claimed_for_a_paused_channel_until_the_pause_is_over(world: World) -> None:
    _brings_back(world)
    until = world.clock.time() + 3600
    world.hook.actions.pause("loja", 3600)
    assert world.alert() == "accepted"
    world.run(30)
    world.skip(3500)
    world.run(60)
    assert world.gateway.calls == []
    paused = world.hook.history.present().paused["loja"]
    assert (paused.channel, paused.until) == ("loja", until)
    world.run(20)
    assert world.hook.history.present().paused == {}
    assert world.outcomes() == ["reconnected"]


def test_a_pause_without_end_ends_when_somebody_resumes(world: World) -> None:
    _brings_back(world)
    world.hook.actions.pause("loja", 60)
    world.hook.actions.pause("loja", None)
    world.put("other", Status.DISCONNECTED)
    for name in ("loja", "other"):
        world.alert(name)
    world.skip(1e7)
    world.run(60)
    assert [name for _, name, _ in world.gateway.calls] == ["other"]
    assert world.hook.history.present().paused["loja"].until is None
    for name in ("loja", "stranger"):
        world.hook.actions.resume(name)
    world.run(5)
    assert world.outcomes() == ["reconnected"]
    assert world.row("stranger") is None


def test_a_pause_in_a_call_lets_it_end(world: World) -> None:
    _brings_back(world)
    world.alert()
    world.run(0.2)
    assert (len(world.hook.workers.calls), world.gateway.calls) == (1, [])
    world.hook.actions.pause("loja", None)
    world.run(10)
    assert world.outcomes() == ["reconnected"]


def test_a_pause_in_a_repair_lets_no_further_call_begin(world: World) -> None:
    world.gateway.answer = QrKind.INITIALIZING
    world.alert()
    world.run(1)
    world.hook.actions.pause("loja", None)
    world.run(200)
    assert world.gateway.calls_of("loja") == ["reconnect"]
    assert world.outcomes() == ["still_disconnected"]


def test_no_session_is_thrown_away_in_a_pause(url: sa.URL, tmp_path: Path) -> None:
    world = World(tmp_path, Options(cooldown=0.0, verify=10.0, allow_restart=True), url=url)
    world.put("loja", Status.DISCONNECTED)
    for _ in range(3):
        world.alert()
        world.run(5)
        if len(world.ended()) == RESTART_AFTER:
            world.hook.actions.pause("loja", None)
        world.run(15)
    assert world.gateway.calls_of("loja") == ["reconnect"] * 3
    assert world.outcomes() == ["still_disconnected"] * 3
    world.hook.actions.resume("loja")
    world.alert()
    world.run(15)
    assert "delete" in world.gateway.calls_of("loja")
    world.close()


def test_nobody_reconnects_or_probes_a_paused_channel(world: World) -> None:
    world.hook.actions.pause("loja", None)
    assert not world.hook.actions.reconnect("loja")
    assert not world.hook.actions.probe_now("loja")
    assert world.hook.history.present().waiting == {}


def test_who_asks_for_a_repair_now_does_not_wait_for_the_cooldown(world: World) -> None:
    world.alert()
    world.run(90)
    assert world.outcomes() == ["still_disconnected"]
    due_at = world.hook.history.present().waiting["loja"].due_at
    assert due_at == world.ended()[0].finished_at + 300
    _brings_back(world)
    assert world.hook.actions.reconnect("loja")
    world.run(5, until=lambda: len(world.hook.workers.calls) == 1)
    waiting = world.hook.history.present().waiting["loja"]
    assert (waiting.reason, waiting.due_at) == (RepairCause.MANUAL, None), "under way"
    world.run(10)
    assert [(one.reason, one.outcome) for one in world.ended()] == [
        (RepairCause.DISCONNECTED, "still_disconnected"),
        (RepairCause.MANUAL, "reconnected"),
    ]


def test_two_presses_are_one_repair(world: World) -> None:
    _brings_back(world)
    assert world.hook.actions.reconnect("loja")
    assert world.hook.actions.reconnect("loja")
    world.run(5, until=lambda: len(world.hook.workers.calls) == 1)
    assert world.hook.actions.reconnect("loja"), "while it is under way"
    world.run(2)
    assert world.hook.actions.reconnect("loja"), "while it is verified"
    world.run(60)
    assert world.outcomes()[0] == "reconnected"
    assert len(world.gateway.calls) <= 2
    assert [one.reason for one in world.ended()] == [RepairCause.MANUAL] * len(world.ended())


def test_a_wish_does_not_outlive_the_repair_that_it_met(world: World) -> None:
    """Else the next look would call a channel that is connected."""
    world.alert()
    world.run(5, until=lambda: bool(world.gateway.calls))
    world.run(1)
    row = world.row()
    assert row is not None
    assert row.phase is Phase.VERIFYING
    assert world.hook.actions.reconnect("loja")
    world.put()
    world.run(60)
    assert world.outcomes() == ["reconnected"]
    assert len(world.gateway.calls) == 1


def test_a_look_ends_the_wait_for_a_scan(world: World) -> None:
    world.gateway.answer = QrKind.QR
    world.alert()
    world.run(5)
    assert world.outcomes() == ["qr_required"]
    waits = {"gateway": GATEWAY, "channel": "loja"}
    assert world.value("whatsapp_reconnect_qr_required", **waits) == 1
    world.put()
    world.hook.actions.recheck("loja")
    row = world.row()
    assert row is not None
    assert row.intent is Intent.RECHECK
    world.run(5)
    assert world.outcomes() == ["qr_required", "recovered"]
    assert world.value("whatsapp_reconnect_qr_required", **waits) == 0


def test_the_history_is_told_in_episodes(world: World) -> None:
    world.run(1)
    world.hook.actions.reconnect("loja")
    world.run(70, until=lambda: bool(world.ended()))
    _brings_back(world)
    world.hook.actions.reconnect("loja")
    world.run(10)
    world.skip(1000)
    world.put(status=Status.DISCONNECTED)
    world.gateway.answer = QrKind.QR
    world.hook.actions.reconnect("loja")
    began = world.clock.time()
    world.run(10)
    history = world.hook.history
    found = history.of_channel("loja")
    told = [[attempt.outcome for attempt in one] for one in episodes(found)]
    assert told == [["qr_required"], ["reconnected", "still_disconnected"]]
    assert [one.id for one in history.last_of_each()] == [found[0].id]
    assert history.ended_since(began) == [found[0]]
    assert history.of_channel("other") == []
