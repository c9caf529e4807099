"""Whole repairs at gateways of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.simulator.server import SimulatorServer
from reconnect_hook.alerts import RepairCause
from reconnect_hook.channel_list_cache import ChannelListCache
from reconnect_hook.context import RepairContext
from reconnect_hook.models import Action, Job, Outcome, Result
from reconnect_hook.repair import repair
from tests.contract.suite import SECRET, World
from tests.support.clock import HandMovedClock
from zapwatch.gateways import evolution, wppconnect
from zapwatch.gateways.registry import ADAPTERS


class _Repairs:
    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, reason: RepairCause, failures: int = 0, *, allowed: bool = False) -> Result:
        gateway = self.world.gateway
        means = RepairContext(
            client=gateway,
            lists=ChannelListCache(gateway),
            messages=None,
            silence_threshold=lambda _: 3600,
            # Only a drop is over before that; for anything else nobody is to wait.
            verify_seconds=20.0 if reason is RepairCause.DISCONNECTED and not failures else 0.0,
            allow_restart=allowed,
            wait=self.world.clock.forward,
            begin_restart=lambda *_: True,
        )
        job = Job(1, "loja", "loja", reason, False, 0.0, 1, failures)
        return repair(means, job)

    @property
    def asked(self) -> set[str]:
        return set(self.world.asked)


@pytest.fixture(params=ADAPTERS)
def repairs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Repairs]:
    monkeypatch.setattr(wppconnect, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(evolution, "_STEADY_PAUSE", 0.0)
    # These pauses are by the machine's clock, which the tests do not move.
    monkeypatch.setattr("reconnect_hook.channel_list_cache._PAUSE_SECONDS", 0.0)
    clock = HandMovedClock()
    with SimulatorServer(SECRET, api=request.param, clock=clock) as server:
        world = World(request.param, server, clock)
        world.simulator.put_channel("loja", reconnect_seconds=3)
        world.simulator.put_channel("obra")
        yield _Repairs(world)
        world.gateway.close()


def test_a_drop_is_reconnected(repairs: _Repairs) -> None:
    repairs.world.simulator.drop("loja")

    result = repairs(RepairCause.DISCONNECTED)

    assert result.outcome is Outcome.RECONNECTED
    assert result.action == ("getQr" if repairs.world.kind == "wrapper" else "reconnect")
    assert not {"delete", "create"} & repairs.asked


def test_an_unpaired_channel_waits_for_a_person(repairs: _Repairs) -> None:
    repairs.world.simulator.unpair("loja")

    assert repairs(RepairCause.DISCONNECTED).outcome is Outcome.QR_REQUIRED
    assert not {"delete", "create"} & repairs.asked


def test_a_zombie_is_alive_afterwards(repairs: _Repairs) -> None:
    repairs.world.simulator.zombie("loja")

    assert repairs(RepairCause.SILENT).outcome is Outcome.REQUESTED
    repairs.world.clock.forward(3)
    state = repairs.world.simulator.channel("loja")
    assert state is not None
    assert state["alive"]
    assert not {"delete", "create"} & repairs.asked


@pytest.mark.parametrize(("failures", "allowed"), [(2, False), (1, True)])
def test_no_pairing_is_lost_before_it_may_be(
    repairs: _Repairs, monkeypatch: pytest.MonkeyPatch, failures: int, allowed: bool
) -> None:
    monkeypatch.setattr("reconnect_hook.repair._INITIALIZING_SECONDS", 0.0)
    repairs.world.simulator.put_channel("loja", session="dead", status="disconnected")

    repairs(RepairCause.DISCONNECTED, failures, allowed=allowed)
    assert not {"delete", "create"} & repairs.asked


def test_where_it_may_be_the_last_step_is_a_new_qr_code(
    repairs: _Repairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconnect_hook.repair._INITIALIZING_SECONDS", 0.0)
    repairs.world.simulator.put_channel("loja", session="dead", status="disconnected")

    result = repairs(RepairCause.DISCONNECTED, 2, allowed=True)

    assert (result.outcome, result.action) == (Outcome.QR_REQUIRED, Action.RESTART)
    assert "delete" in repairs.asked


def test_a_start_that_stays_names_what_to_look_at(
    repairs: _Repairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconnect_hook.repair._INITIALIZING_SECONDS", 0.0)
    repairs.world.simulator.put_channel("loja", status="initializing", session="dead")

    result = repairs(RepairCause.DISCONNECTED, 1)

    assert result.outcome is Outcome.STILL_DISCONNECTED
    assert result.detail == repairs.world.gateway.starting_hint
    assert bool(result.detail) is (repairs.world.kind in {"wppconnect", "evolution", "waha"})


def test_a_step_that_fails_loses_no_channel_that_is_kept(
    repairs: _Repairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconnect_hook.repair._INITIALIZING_SECONDS", 0.0)
    world = repairs.world
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    world.simulator.fault("delete", "html_502")

    result = repairs(RepairCause.DISCONNECTED, 2, allowed=True)

    assert (result.outcome, result.action) == (Outcome.FAILED, Action.RESTART)
    assert result.restart_pending is not world.gateway.keeps_channel


def test_a_channel_that_is_not_repairable_is_never_called(repairs: _Repairs) -> None:
    if repairs.world.kind != "evolution":
        return  # no other gateway has such channels
    repairs.world.simulator.put_channel("loja", integration="WHATSAPP-BUSINESS")

    result = repairs(RepairCause.SILENT)

    assert (result.outcome, result.action) == (Outcome.FAILED, Action.NONE)
    assert repairs.asked <= {"list", "status"}
