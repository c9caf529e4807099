"""SQLite files: who may read and write them, and what happens when the state's is taken away."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from reconnect_hook.alerts import AlertWriter
from reconnect_hook.models import Backoff
from reconnect_hook.schema import open_state
from tests.support.states import firing, open_rows, sqlite_url
from zapwatch.db import Database, UnavailableError, use_wal


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = open_state(sqlite_url(tmp_path))
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path, database: Database) -> Path:
    return Path(str(sqlite_url(tmp_path).database))


def _accept(database: Database) -> list[str]:
    return [str(one) for one in AlertWriter(database, "wpp", Backoff(300)).accept([firing()])]


def _waiting(database: Database) -> int:
    with database.read() as connection:
        return len(open_rows(connection, "wpp"))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_state_that_was_taken_away_is_made_anew(
    database: Database, path: Path, *, replaced: bool
) -> None:
    assert _accept(database) == ["accepted"]
    path.unlink()
    if replaced:
        path.touch()
    assert _waiting(database) == 0
    assert _accept(database) == ["accepted"]
    again = open_state(sa.make_url(f"sqlite:///{path}"))
    assert _waiting(again) == 1, "both use the same"
    again.close()


def test_at_the_end_all_is_in_one_file_though_another_connection_is_open(
    database: Database, path: Path
) -> None:
    """A backup may have no other."""
    with database.read() as connection:
        assert list(connection.exec_driver_sql("SELECT 1 FROM channel")) == []
        assert _accept(database) == ["accepted"]
        log = path.with_name(f"{path.name}-wal")
        assert log.stat().st_size
        database.close()
        assert not log.stat().st_size


@pytest.mark.parametrize("moment", ["before_cursor_execute", "commit"])
def test_a_transaction_that_met_another_one_is_made_again(database: Database, moment: str) -> None:
    """Galera says so at the commit as well."""
    tries: list[str] = []

    @sa.event.listens_for(database._engine, moment)
    def collide(*about: object) -> None:
        if moment == "commit" or about[2] == "BEGIN IMMEDIATE":
            tries.append(moment)
        if 0 < len(tries) < 3:
            raise sa.exc.OperationalError("", {}, Exception(1213, "Deadlock found"))

    assert _accept(database) == ["accepted"]
    assert len(tries) == 3
    assert _waiting(database) == 1


def test_what_was_written_to_a_file_that_is_gone_was_not_stored(
    database: Database, path: Path
) -> None:
    with pytest.raises(UnavailableError, match="deleted or replaced"), database.write():
        path.unlink()
    assert _waiting(database) == 0


def test_a_state_that_is_put_back_is_used_again(database: Database, path: Path) -> None:
    assert _accept(database) == ["accepted"]
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).rename(path.with_name("away" + suffix))
    assert _waiting(database) == 0
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    for suffix in ("", "-wal", "-shm"):
        path.with_name("away" + suffix).replace(path.with_name(path.name + suffix))
    assert _waiting(database) == 1


def test_a_full_database_is_unavailable_until_there_is_room(database: Database) -> None:
    # SQLite itself says that it is full, as it does on a full disk.
    pages = [0]

    def limit(connection: sqlite3.Connection, _record: object, _proxy: object) -> None:
        (now,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages[0] or now}")

    sa.event.listen(database._engine, "checkout", limit)
    many = [firing(f"channel {number}" + "x" * 200) for number in range(500)]
    intake = AlertWriter(database, "wpp", Backoff(300))
    with pytest.raises(UnavailableError, match="full"):
        intake.accept(many)
    assert _waiting(database) == 0
    pages[0] = 1_000_000
    assert intake.accept(many) == ["accepted"] * 500
    assert _waiting(database) == 500


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        database = open_state(sqlite_url(tmp_path))
        assert _accept(database) == ["accepted"]
        files = list((tmp_path / "var").iterdir())
        assert {file.name for file in files} == {
            "state.sqlite3",
            "state.sqlite3-wal",
            "state.sqlite3-shm",
        }
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        database.close()
    finally:
        os.umask(before)


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
