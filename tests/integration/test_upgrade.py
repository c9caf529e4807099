"""Databases that are new, made by half, or of another version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from reconnect_hook.schema import VERSION_TABLE, metadata, open_state
from tests.support.programs import FORKS
from tests.support.waiting import TIMEOUT
from zapwatch.db import StateError


@pytest.fixture
def engine(url: sa.URL, tmp_path: Path) -> Iterator[sa.Engine]:
    (tmp_path / "var").mkdir()
    made = sa.create_engine(url)
    yield made
    made.dispose()


def _run(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in ";".join(statements).split(";"):
            connection.exec_driver_sql(statement)


def _check(engine: sa.Engine) -> None:
    """Check that the tables are those that the program believes in."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": False,
                "include_name": lambda name, kind, _: kind != "table" or name != VERSION_TABLE,
            },
        )
        assert compare_metadata(context, metadata) == []


class CutShortError(Exception):
    """The program has died."""


@contextmanager
def _dies_after(changes: int) -> Iterator[None]:
    """Let the program die after so many statements that change something."""
    left = [changes]

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.split(maxsplit=1)[0] in {"CREATE", "INSERT", "UPDATE", "DELETE", "DROP"}:
            left[0] -= 1
            if left[0] < 0:
                raise CutShortError

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)


@pytest.mark.parametrize("changes", [2, 9, 16])
def test_a_database_that_was_made_by_half_is_completed(
    url: sa.URL, engine: sa.Engine, changes: int
) -> None:
    """MariaDB commits at every change of a table: what was made stays."""
    with pytest.raises(StateError), _dies_after(changes):
        open_state(url)
    open_state(url).close()
    _check(engine)


@pytest.mark.parametrize(
    ("version", "start"),
    [("0005", "commit 4e622a2, then af2f1b0, once"), ("0006", "commit af2f1b0 once")],
)
def test_an_older_database_is_refused_with_what_to_do(
    url: sa.URL, engine: sa.Engine, version: str, start: str
) -> None:
    open_state(url).close()
    _run(engine, f"UPDATE {VERSION_TABLE} SET version_num = '{version}'")
    said = f"revision {version} was never released; delete them, and alerts fill a new state, or "
    with pytest.raises(StateError, match=f"{said}start {start} with them"):
        open_state(url)


def test_a_state_of_an_earlier_checkout_keeps_its_rows(url: sa.URL, engine: sa.Engine) -> None:
    open_state(url).close()
    _run(
        engine,
        "ALTER TABLE gateway DROP COLUMN list_failed",
        "INSERT INTO gateway (gateway) VALUES ('wpp')",
        f"UPDATE {VERSION_TABLE} SET version_num = '0012'",
    )
    open_state(url).close()
    _check(engine)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT gateway, list_failed FROM gateway").all()
    assert found == [("wpp", 0)]


def test_the_very_first_tables_are_refused_as_well(url: sa.URL, engine: sa.Engine) -> None:
    """They note no version."""
    _run(engine, "CREATE TABLE repairs (id INTEGER, not_before DOUBLE)")
    with pytest.raises(StateError, match="revision 0001 was never released"):
        open_state(url)


def test_programs_that_start_at_once_upgrade_once(url: sa.URL, engine: sa.Engine) -> None:
    programs = [FORKS.Process(target=open_state, args=(url,), daemon=True) for _ in range(4)]
    for program in programs:
        program.start()
    for program in programs:
        program.join(TIMEOUT)
    assert [program.exitcode for program in programs] == [0] * 4
    _check(engine)


def test_a_newer_database_is_left_alone(url: sa.URL, engine: sa.Engine) -> None:
    open_state(url).close()
    _run(engine, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StateError, match=r"not known to this version.*9999") as caught:
        open_state(url)
    assert str(caught.value).isprintable()
