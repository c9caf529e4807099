"""A simulated gateway whose clock stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.clock import HandMovedClock
from tests.support.hooks import SECRET
from tests.support.simulated import Api
from zapwatch.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return HandMovedClock()


@pytest.fixture
def server(clock: Clock) -> Iterator[SimulatorServer]:
    with SimulatorServer(SECRET, clock=clock) as running:
        yield running


@pytest.fixture
def api(simulator: Simulator) -> Api:
    return Api(simulator.url)
