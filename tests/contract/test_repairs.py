"""What of a whole repair depends on the kind of gateway: its last step, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulated_world import SimulatedWorld
from tests.support.world import Options
from zapwatch.gateways.registry import ADAPTERS

_LOSING = {"delete", "create"}
_DEAD: Any = {"session": "dead", "status": "disconnected"}


@pytest.fixture(params=ADAPTERS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., SimulatedWorld]:
    """Make worlds with a gateway of one kind after the other."""

    def make(**options: Any) -> SimulatedWorld:
        options = {"cooldown": 0, "verify": 10.0, "list_takes": 10.0} | options
        made = SimulatedWorld(tmp_path, Options(**options), api=request.param)
        request.addfinalizer(made.close)
        return made

    return make


def test_where_it_may_be_the_last_step_is_a_new_qr_code(
    make: Callable[..., SimulatedWorld],
) -> None:
    world = make(allow_restart=True)
    world.simulator.put_channel("loja", **_DEAD)
    for _ in range(2):
        assert world.repair().action == world.client.reconnect_call
    assert not _LOSING & set(world.calls())
    world.simulator.fault("delete", "html_502", times=1)
    ended = world.repair()
    assert (ended.outcome, ended.action) == ("failed", "restart")
    row = world.row()
    assert row is not None
    assert row.restarting is not world.client.keeps_channel, "no channel that is kept is lost"
    ended = world.repair()
    assert (ended.outcome, ended.action) == ("qr_required", "restart")
    assert "delete" in world.calls()


def test_a_start_that_stays_names_what_to_look_at(make: Callable[..., SimulatedWorld]) -> None:
    world = make()
    world.simulator.put_channel("loja", status="initializing", session="dead")
    ended = world.repair()
    assert ended.outcome == "still_disconnected"
    assert ended.detail == world.client.starting_hint
