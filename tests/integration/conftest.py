"""Fixtures that the integration tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.simulator.client import Simulator
from tests.support.hooks import hook_settings
from tests.support.programs import Program


@pytest.fixture
def serve(simulator: Simulator, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start hooks that share one working directory, and so state and log."""
    programs: list[Program] = []

    def start(**more: str) -> Program:
        settings = hook_settings(simulator.url, **more)
        programs.append(Program(tmp_path, "reconnect_hook", "serve", settings=settings))
        return programs[-1]

    yield start
    for program in programs:
        program.__exit__(None, None, None)
