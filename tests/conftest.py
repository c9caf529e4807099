"""Fixtures that tests of several kinds use."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from xdist.scheduler import LoadFileScheduling

from tests.support import examples  # noqa: F401 - it registers the profile of make test-fast
from tests.support.mariadb import MYSQLD, MariaDb
from tests.support.message_logs import WrittenLog, on_mariadb, on_sqlite
from zapwatch import server

# Galera is MariaDB's.
collect_ignore = ["integration/test_galera.py"] if MYSQLD else []

# Beginnings of paths, of what takes longest first.
_LONG = (
    *("e2e/test_probes", "e2e/test_silence", "e2e/test_gateways", "e2e/test_cluster"),
    *("deploy/test_operations", "browser", "e2e", "deploy", "integration/test_crashes"),
    *("integration/test_probe_crashes", "unit/test_episode_model", "unit/test_probe_limits"),
    *("rules/test_rules", "integration/test_hook_http", "integration/test_exporter_process"),
    *("integration/test_log_tailer", "integration/test_message_log", "integration/test_upgrade"),
    *("integration/test_check", "integration/test_fuzz", "integration/test_log_faults"),
    "integration",
)
# Files that one worker runs, as they share a browser and servers; or since a worker is given its
# next file before the last two tests of the one at hand, which would wait for all of test_probes.
_TOGETHER = ("tests/browser/", "tests/e2e/test_probes.py", "tests/e2e/test_silence.py")
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 6 * 2**30  # free ones, for all the databases that run at a time


def pytest_configure() -> None:
    """Save time that is lost with each commit and each connection; what is started inherits it.

    Temporary files are in memory where there is room: a disk takes 5 ms to flush a commit. No
    certificate of this machine is trusted: reading them takes 50 ms for each connection of PyMySQL.
    Prometheus and promtool collect their garbage less often, which is a quarter of their work.
    So does Python, which would look through all tests each time: a tenth of their work.
    Ctrl-C is not ignored, as it is in what a script runs in the background.
    """
    gc.set_threshold(20_000, 20, 20)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["SSL_CERT_FILE"] = os.devnull
    os.environ.setdefault("GOGC", "400")
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files first that take long, most of which they wait: last, all would wait for them.

    Else the order stays the random one. (``--no-loadscope-reorder`` lets it stand.)
    """
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(here).as_posix()
        return next((n for n, one in enumerate(_LONG) if path.startswith(one)), len(_LONG))

    items.sort(key=rank)


class _FilesTogether(LoadFileScheduling):  # type: ignore[misc]
    """Gives each file to one worker, and some to the same."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return file.rpartition("/")[0] if file.startswith(_TOGETHER) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return _FilesTogether(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture
def dead_threads() -> Iterator[list[str]]:
    """Empty the list of threads that have failed, before and after."""
    server.dead_threads.clear()
    yield server.dead_threads
    server.dead_threads.clear()


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
