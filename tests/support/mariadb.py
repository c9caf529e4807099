"""A MariaDB or MySQL server in a temporary directory, with Debian's programs."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pymysql
import sqlalchemy as sa

from tests.support.ports import free_port
from tests.support.waiting import TIMEOUT, wait_until

MYSQLD = os.environ.get("ZAPWATCH_TEST_MYSQLD")
"""The path of MySQL's ``mysqld``, which is then started instead of MariaDB's."""

TIME_ZONES = ("America/Sao_Paulo", "America/New_York")
"""The server's named time zones; others are available as offsets such as ``-05:30``."""

_ADMIN = "admin"

_OPTIONS = {
    "bind-address": "127.0.0.1",
    "skip-name-resolve": "ON",
    "skip-log-bin": None,
    "performance-schema": "OFF",
    "innodb-buffer-pool-size": "64M",
    "loose-innodb-log-file-size": "64M",
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-flush-method": "O_DIRECT_NO_FSYNC",
    "innodb-doublewrite": "OFF",
    "innodb-file-per-table": "ON",
    "loose-aria-pagecache-buffer-size": "8M",
    "loose-mysqlx": "OFF",
    "key-buffer-size": "1M",
    "table-open-cache": "200",
    "max-connections": "200",
    "max-allowed-packet": "64M",
    "lock-wait-timeout": "20",
    "innodb-lock-wait-timeout": "20",
}


class MariaDb:
    """A server on a free port of 127.0.0.1. Restarts keep its port and its data.

    ``options`` are options of the server without leading dashes; they extend or replace the
    defaults, which are fast and not durable. Use it in a ``with`` statement, or call start() and
    finally remove(). ``password`` is the administrator's, for a server that takes its data from
    another one.
    """

    def __init__(
        self, options: Mapping[str, str] | None = None, password: str | None = None
    ) -> None:
        self._options = {**_OPTIONS, **(options or {})}
        self._directory = Path(tempfile.mkdtemp(prefix="zapwatch-mariadb-"))
        self._data = self._directory / "data"
        self._log = self._directory / "mariadbd.log"
        self.password = password or secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def url(self, database: str, user: str | None = None, password: str | None = None) -> sa.URL:
        """Return a database's SQLAlchemy URL, for the administrator unless a user is given."""
        return sa.URL.create(
            "mysql+pymysql",
            username=_ADMIN if user is None else user,
            password=self.password if user is None else password,
            host="127.0.0.1",
            port=self.port,
            database=database,
            query={"charset": "utf8mb4"},
        )

    def execute(self, *statements: str) -> None:
        """Execute statements as the administrator, each on a separate connection."""
        for statement in statements:
            self._run(statement)

    def variable(self, statement: str) -> str:
        """Return the last column of a statement's first row."""
        return str(self._run(statement)[0][-1])

    def _run(self, statement: str, *values: object) -> Sequence[tuple[Any, ...]]:
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall()

    def create_database(self) -> str:
        name = f"zapwatch_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, and kill the connections that still use it."""
        self._kill_connections("db", name)
        self.execute(f"DROP DATABASE IF EXISTS {name}")

    def disconnect(self, user: str | None) -> None:
        self._kill_connections("user", user)

    def create_user(self, password: str, *grants: str) -> str:
        """Create a local user with grants such as ``SELECT ON name.table``; return its name."""
        name = f"user_{secrets.token_hex(6)}"
        self._run(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY %s", password)
        self.execute(*(f"GRANT {grant} TO {name}@'127.0.0.1'" for grant in grants))
        return name

    def start(self) -> None:
        assert self._process is None, "it runs already"
        if not self._data.exists():
            self._install()
        if not self.port:
            self.port = free_port()
        settings = {
            **self._options,
            "port": str(self.port),
            "datadir": str(self._data),
            "socket": str(self._directory / "mysqld.sock"),
            "pid-file": str(self._directory / "mariadbd.pid"),
            "log-error": str(self._log),
            "tmpdir": str(self._directory),
            "secure-file-priv": str(self._directory),
        }
        # A separate session, so that Ctrl-C does not end it before the tests that use it.
        self._process = subprocess.Popen(
            [
                *(MYSQLD or _program("mariadbd"), "--no-defaults", *_user()),
                *(f"--{name}" + (f"={value}" if value else "") for name, value in settings.items()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._directory,
            start_new_session=True,
        )
        wait_until(self._answers, "the server to answer")

    def stop(self) -> None:
        """Shut the server down cleanly, if it runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server, as a power cut would; its last second may be lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server: it accepts connections and requests without answering."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _install(self) -> None:
        user = _user()
        if user:
            account = pwd.getpwnam("mysql")
            os.chown(self._directory, account.pw_uid, account.pw_gid)
        first = self._directory / "first.sql"
        tzinfo_to_sql = "mysql_tzinfo_to_sql" if MYSQLD else "mariadb-tzinfo-to-sql"
        zones = "".join(
            subprocess.run(
                [_program(tzinfo_to_sql), f"/usr/share/zoneinfo/{zone}", zone],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for zone in TIME_ZONES
        )
        first.write_text(
            f"USE mysql;\n{zones}FLUSH PRIVILEGES;\n"
            f"CREATE USER {_ADMIN}@'127.0.0.1' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO {_ADMIN}@'127.0.0.1' WITH GRANT OPTION;\n",
            encoding="utf-8",
        )
        if MYSQLD:
            program, own = MYSQLD, ["--initialize-insecure", f"--init-file={first}"]
        else:
            program = _program("mariadb-install-db")
            own = [f"--extra-file={first}", "--skip-test-db", "--innodb-log-file-size=64M"]
        done = subprocess.run(
            [
                *(program, "--no-defaults", *user, f"--datadir={self._data}", *own),
                *("--skip-name-resolve", "--innodb-doublewrite=OFF"),
                "--innodb-flush-log-at-trx-commit=0",
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=self._directory,
            # A starting server deletes other servers' temporary tables in the same folder.
            env={**os.environ, "TMPDIR": str(self._directory)},
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def _kill_connections(self, column: str, value: str | None) -> None:
        listed = f"SELECT id FROM information_schema.processlist WHERE {column} = %s"
        for (number,) in self._run(listed, value):
            # One that has ended by itself cannot be killed.
            with suppress(pymysql.err.OperationalError):
                self._run(f"KILL CONNECTION {number:d}")

    def _connect(self) -> pymysql.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=_ADMIN,
            password=self.password,
            connect_timeout=10,
            autocommit=True,
        )

    def _answers(self) -> bool:
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            self._process = None
            said = self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""
            raise AssertionError(f"the server ended with {code}: {said}")
        try:
            with self._connect():
                return True
        except pymysql.err.OperationalError:
            return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert found, f"{name} is missing: apt-get install mariadb-server"
    return found


def _user() -> list[str]:
    """Return the option that drops root's privileges, if the tests run as root."""
    return ["--user=mysql"] if os.geteuid() == 0 else []
