"""Fixtures that the integration tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.gateway import Observed
from tests.support.hooks import SECRET, hook_settings
from tests.support.message_logs import WrittenLog
from tests.support.programs import Fork, Program
from tests.support.states import sqlite_url
from zapwatch.messages.webhook_log import MessageLog


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> sa.URL:
    """Return the URL of an empty database of each kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    made = request.getfixturevalue("database")
    assert isinstance(made, sa.URL)
    return made


@pytest.fixture
def log(written: WrittenLog) -> Iterator[MessageLog]:
    """Open that message log as the exporter does."""
    opened = MessageLog(written.reader)
    yield opened
    opened.close()


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    """Run a simulated gateway, which has no channel yet."""
    with SimulatorServer(SECRET) as running:
        yield running


@pytest.fixture
def simulator(server: SimulatorServer) -> Simulator:
    """Control that gateway; a file's own fixture of this name adds its channels."""
    return Simulator(server.url)


@pytest.fixture
def observed(simulator: Simulator) -> Iterator[Observed]:
    with Observed(simulator.url, list_timeout=20, qr_timeout=20) as client:
        yield client


@pytest.fixture
def serve(simulator: Simulator, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start hooks that share one working directory, and so state and log."""
    programs: list[Program] = []

    def start(**more: str) -> Program:
        settings = hook_settings(simulator.url, **more)
        programs.append(Fork(tmp_path, "reconnect_hook", "serve", settings=settings))
        return programs[-1]

    yield start
    for program in programs:
        program.__exit__(None, None, None)
