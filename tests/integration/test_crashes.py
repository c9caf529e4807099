"""kill -9 at random moments, on SQLite and on MariaDB with two hooks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.crashes import Toll, crash
from tests.support.states import sqlite_url

_KILLS = 25  # on each; `python -m benchmarks.hook_crashes` does as many as wanted


def _check(toll: Toll, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\ncrashes: {toll}")  # noqa: T201 - the seed must be seen
    assert toll.kills == _KILLS
    assert toll.accepted > _KILLS / 5, toll
    assert toll.calls > _KILLS / 8, toll
    assert (toll.lost, toll.unlogged, toll.too_many) == ([], [], []), toll


def _seed() -> int:
    return int.from_bytes(os.urandom(4), "big")


def test_what_was_accepted_survives_a_hook_on_sqlite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "var").mkdir()
    _check(crash(tmp_path, sqlite_url(tmp_path), hooks=1, kills=_KILLS, seed=_seed()), capsys)


def test_what_was_accepted_survives_two_hooks_on_mariadb(
    tmp_path: Path, database: sa.URL, capsys: pytest.CaptureFixture[str]
) -> None:
    _check(crash(tmp_path, database, hooks=2, kills=_KILLS, seed=_seed()), capsys)
