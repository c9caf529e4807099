"""Fixtures that tests of several kinds use."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support import examples  # noqa: F401 - it registers the profile of make test-fast
from tests.support.mariadb import MariaDb
from tests.support.message_logs import WrittenLog, on_mariadb, on_sqlite

_LONG = ("e2e", "deploy", "browser")
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 6 * 2**30  # free ones, for all the databases that run at a time


def pytest_configure() -> None:
    """Save time that is lost with each commit and each connection; what is started inherits it.

    Temporary files are in memory where there is room: a disk takes 5 ms to flush a commit. No
    certificate of this machine is trusted: reading them takes 50 ms for each connection of PyMySQL.
    """
    os.environ["SSL_CERT_FILE"] = os.devnull
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files first that take minutes, most of which they wait: last, all would wait.

    Within a folder the order stays the random one. (``--no-loadscope-reorder`` lets it stand.)
    """
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0]
        return _LONG.index(folder) if folder in _LONG else len(_LONG)

    items.sort(key=rank)


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


@pytest.fixture
def mariadb_log(mariadb: MariaDb) -> Iterator[WrittenLog]:
    """Make an empty message log on MariaDB."""
    with on_mariadb(mariadb) as log:
        yield log


@pytest.fixture
def sqlite_log(tmp_path: Path) -> Iterator[WrittenLog]:
    """Make an empty message log in an SQLite file."""
    with on_sqlite(tmp_path) as log:
        yield log


@pytest.fixture(params=["mariadb", "sqlite"])
def written(request: pytest.FixtureRequest) -> WrittenLog:
    """Make an empty message log, on MariaDB and on SQLite: the test runs twice."""
    log = request.getfixturevalue(f"{request.param}_log")
    assert isinstance(log, WrittenLog)
    return log
