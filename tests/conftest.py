"""Fixtures that tests of several kinds use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.support.mariadb import MariaDb


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """Run a MariaDB server of the session's own; it starts when the first test wants it."""
    with MariaDb() as server:
        yield server


@pytest.fixture
def database(mariadb: MariaDb) -> Iterator[sa.URL]:
    """Make an empty database on that server, by the administrator's URL; dropped afterwards."""
    name = mariadb.create_database()
    yield mariadb.url(name)
    mariadb.drop_database(name)
