"""SQLite files to which several write."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from zapwatch.db import use_wal


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


def test_it_waits_until_who_writes_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "file"
    first, second = _open(path), _open(path)
    first.execute("CREATE TABLE rows (id)")
    first.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        use_wal(second, 0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(use_wal, second, 60)
        first.execute("COMMIT")
        waiting.result(60)
    assert second.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    first.close()
    second.close()
