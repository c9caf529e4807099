"""The hook's state in a test's hands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from reconnect_hook.alerts import Alert, AlertStatus, RepairCause, Target


class StateClock:
    """Takes the place of the database's clock; ``seconds`` may be set to anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1_700_000_000.0
        for module in ("alert_writer", "probe_limits", "queue", "repository"):
            clock = f"reconnect_hook.{module}.now"
            monkeypatch.setattr(clock, lambda _connection: self.seconds)


def firing(channel: str = "loja", reason: RepairCause = RepairCause.DISCONNECTED) -> Alert:
    """Return an alert that asks for a repair."""
    return Alert(AlertStatus.FIRING, Target(channel, reason))


def resolved(channel: str = "loja", reason: RepairCause = RepairCause.DISCONNECTED) -> Alert:
    """Return an alert that is over."""
    return Alert(AlertStatus.RESOLVED, Target(channel, reason))


def sqlite_url(directory: Path) -> sa.URL:
    """Return the URL of a state file in a folder that is not there yet."""
    return sa.URL.create("sqlite", database=str(directory / "var" / "state.sqlite3"))


@contextmanager
def locked(url: sa.URL) -> Iterator[None]:
    """Let nobody else write into an SQLite state meanwhile."""
    connection = sqlite3.connect(str(url.database), isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()
