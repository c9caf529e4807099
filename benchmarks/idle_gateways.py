"""Cost of healthy gateways: ``python -m benchmarks.idle_gateways``.

Exporter and hook are real processes; one simulated gateway serves all entries. The hook's
statements are counted by MariaDB, and by SQLite's trace in a hook inside this process.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.supervisor import HookSupervisor, open_store
from tests.support.hooks import SECRET, hook_settings
from tests.support.mariadb import MariaDb
from tests.support.programs import Program
from zapwatch.config import parse

_PROGRAMS = (("exporter",), ("reconnect_hook", "serve"))
_GATEWAYS = (1, 20)
_CHANNELS = 50  # per gateway
_SETTLE_SECONDS = 3.0
_SECONDS = 10.0


def main() -> None:
    """Run the benchmark and print the results."""
    with SimulatorServer(SECRET) as server, tempfile.TemporaryDirectory() as name:
        for number in range(_CHANNELS):
            Simulator(server.url).put_channel(f"channel{number}")
        for count in _GATEWAYS:
            settings = _settings(Path(name), server.url, count)
            for program in _PROGRAMS:
                with Program(Path(name), *program, settings=settings) as running:
                    assert running.url
                    time.sleep(_SETTLE_SECONDS)
                    costing = costs(running.process.pid)
                    print(f"{count:3} gateways: {program[0]:14} {costing}", flush=True)
            for kind, counted in (
                ("SQLite", _on_sqlite(Path(name), settings)),
                ("MariaDB", _on_mariadb(Path(name), settings)),
            ):
                print(
                    f"{count:3} gateways: {counted:.2f} statements a second on {kind}", flush=True
                )


def _on_sqlite(folder: Path, settings: dict[str, str]) -> float:
    values = settings | {
        "HOOK_STATE_URL": f"sqlite:///{folder}/counted.sqlite3",
        "HOOK_LOG_FILE": str(folder / "counted.log"),
    }
    parsed = parse(values)
    store = open_store(parsed)
    store.database.close()  # so that each connection is new and traced
    statements: list[str] = []

    def trace(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_trace_callback(statements.append)

    sa.event.listen(sa.pool.Pool, "connect", trace)
    supervisor = HookSupervisor(parsed, store, HookMetrics())
    supervisor.apply_config(parsed.gateways)
    time.sleep(_SETTLE_SECONDS)
    statements.clear()
    time.sleep(_SECONDS)
    counted = len(statements) / _SECONDS
    supervisor.stop(2)
    store.database.close()
    sa.event.remove(sa.pool.Pool, "connect", trace)
    return counted


def _on_mariadb(folder: Path, settings: dict[str, str]) -> float:
    with MariaDb() as server:
        state = server.url(server.create_database())
        values = settings | {"HOOK_STATE_URL": state.render_as_string(hide_password=False)}
        engine = sa.create_engine(state, isolation_level="AUTOCOMMIT")
        with (
            Program(folder, "reconnect_hook", "serve", settings=values) as hook,
            engine.connect() as connection,
        ):
            assert hook.url
            time.sleep(_SETTLE_SECONDS)
            before = _questions(connection)
            time.sleep(_SECONDS)
            # Without the counting statement itself.
            counted = (_questions(connection) - before - 1) / _SECONDS
        engine.dispose()
    return counted


def _questions(connection: sa.Connection) -> int:
    row = connection.execute(sa.text("SHOW GLOBAL STATUS LIKE 'Questions'")).one()
    return int(row[1])


def _settings(folder: Path, url: str, count: int) -> dict[str, str]:
    file = folder / "gateways.yaml"
    entries = (
        f"- {{name: g{number}, type: wrapper, url: '{url}', secret: {SECRET}}}\n"
        for number in range(count)
    )
    file.write_text("gateways:\n" + "".join(entries))
    found = {k: v for k, v in hook_settings("").items() if not k.startswith("WPP_")}
    return found | {"GATEWAYS_FILE": str(file), "EXPORTER_LISTEN": "127.0.0.1:0"}


def costs(pid: int) -> str:
    """Return a process's share of a core over ten seconds, its threads and its memory."""
    began = _cpu_seconds(pid)
    time.sleep(_SECONDS)
    share = (_cpu_seconds(pid) - began) / _SECONDS
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    memory = int(status["VmRSS"].split()[0]) / 1024
    return f"{share:.1%} of a core, {int(status['Threads'])} threads, {memory:.0f} MB"


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
