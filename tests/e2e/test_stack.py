"""``python -m demo`` as a user runs it: with nothing, and with PixelHub's own ``.env``."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from demo.loop import get
from demo.simulator.client import Simulator
from demo.simulator.schema import create_message_log, insert_message
from demo.simulator.server import SimulatorServer
from tests.support.dashboards import dashboards, queries
from tests.support.mariadb import MariaDb
from tests.support.pixelhub import encrypt
from tests.support.ports import free
from tests.support.programs import run_here
from tests.support.waiting import TIMEOUT, wait_until

_PASSWORD = "a$b#c'd\"e\\f @/:%"
_ROWS = 100_000


class RunningStack:
    """A stack in the foreground of its own folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        self._output = folder / "output.txt"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("WPP_", "DB_"))}
        # Ports that are free: the defaults may be in use on this machine.
        env = kept | {"EXPORTER_LISTEN": str(free()), "HOOK_LISTEN": str(free())}
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "demo", *arguments],
                cwd=folder,
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        def find() -> bool:
            assert self.process.poll() is None, self.text
            return text in self.text

        wait_until(find, f"{text!r} to be printed")

    def url(self, name: str) -> str:
        found = re.search(rf"^  {name} +(http\S+)$", self.text, re.MULTILINE)
        assert found, self.text
        return found[1]

    def interrupt(self) -> None:
        """Press Ctrl-C, and check that nothing is left behind."""
        session = self._children()
        assert len(session) >= 4, session
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(TIMEOUT) == 0
        assert not [pid for pid in session if Path(f"/proc/{pid}").exists()]

    def _children(self) -> list[str]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return path.read_text().split()


@contextmanager
def running_stack(folder: Path, *arguments: str) -> Iterator[RunningStack]:
    stack = RunningStack(folder, *arguments)
    try:
        yield stack
        stack.interrupt()
    finally:
        stack.process.terminate()
        stack.process.wait(TIMEOUT)


def test_without_a_gateway_it_tells_the_story_to_its_end(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WPP_GATEWAY_TYPE=evolution\nMESSAGE_SOURCE=none\n")
    with running_stack(tmp_path) as stack:
        stack.wait_for("Everything stays up until Ctrl-C")
        table = stack.text.partition("All channels are well")[2]
        for outcome in ("reconnected", "qr_required", "WhatsAppChannelNeedsQrScan fires"):
            assert outcome in table
        # Of what is found at once, what came first is printed first.
        lost = [line for line in table.splitlines() if "Loja Centro" in line]
        (call,) = (at for at, line in enumerate(lost) if "getQr called" in line)
        assert call < next(at for at, line in enumerate(lost) if "outcome qr_required" in line)
        for channel in ("pixel12digital", "imobsites", "Loja Centro"):
            assert re.search(rf"^{channel} .*( +[\d.]+ s){{3}} *$", table, re.MULTILINE), table
        # Who is only quiet is asked, and left in peace.
        assert re.search(r"^Obra Norte .* +[\d.]+ s +- +- *$", table, re.MULTILINE), table
        assert "whatsapp_channel_connected" in get(stack.url("metrics")).text
        assert "whatsapp_reconnect_attempts_total" in get(stack.url("hook")).text
        assert get(stack.url("firing alerts")).json() == []
        hour = get(stack.url("alerts, 1 h")).json()["data"]["result"]
        names = {alert["metric"]["alertname"] for alert in hour}
        assert names == {
            "WhatsAppChannelSuspect",
            "WhatsAppChannelDisconnected",
            "WhatsAppChannelSilent",
            "WhatsAppChannelNeedsQrScan",
        }
        assert not unanswered(stack.url("alerts, 1 h").partition("/api/")[0])
        assert not (tmp_path / "logs").exists(), "there is the log of what really happened"
        log = (tmp_path / "var" / "demo" / "healthcheck-sessions.log").read_text()
        assert "channel=pixel12digital reason=disconnected action=getQr" in log
        assert "atendimento" not in log
        assert "Obra Norte" not in log


def unanswered(prometheus: str) -> list[str]:
    """Return the places of the dashboards where there would be no data after the story.

    Except those of audits, since the story's gateway, a wrapper, lists no messages, and alerts of
    a whole gateway: the story has none.
    """
    without = "Missed messages|Audits and deliveries|all channels / annotation Alerts"
    # One that dropped, and one that was asked.
    stories = [{"gateway": "wpp", "channel": name} for name in ("pixel12digital", "Obra Norte")]
    return [
        query.where
        for dashboard in dashboards()
        for query in queries(dashboard)
        if not re.search(without, query.where)
        and not any(
            ask(prometheus, _now(query.filled(of)), instant=query.instant) for of in stories
        )
    ]


def _now(expression: str) -> str:
    """Return an expression with the scrapes in place of an average that takes five minutes."""
    average = "gateway_channel:whatsapp_channel_connected:avg5m"
    return expression.replace(average, "whatsapp_channel_connected")


def ask(prometheus: str, expression: str, *, instant: bool) -> list[Any]:
    """Return the series that Prometheus has for an expression, now or in the last ten minutes."""
    url = f"{prometheus}/api/v1/query?query={quote(expression)}"
    if not instant:
        now = time.time()
        url = url.replace("/query?", f"/query_range?start={now - 600}&end={now}&step=1&")
    answer = get(url).json()
    assert answer["status"] == "success", (answer, expression)
    return [
        series
        for series in answer["data"]["result"]
        for _, value in series.get("values", [series.get("value")])
        if value != "NaN"
    ]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "WPP_GATEWAY_BASE_URL=gateway.example.com:8443",
            "WPP_GATEWAY_BASE_URL must look like https://",
        ),
        ("GATEWAYS_FILE=gateways.yaml", "GATEWAYS_FILE: gateways.yaml cannot be read: "),
    ],
)
def test_a_wrong_setting_ends_it_with_one_line(tmp_path: Path, setting: str, words: str) -> None:
    (tmp_path / ".env").write_text(f"{setting}\n")
    ended = run_here(tmp_path, "demo", settings={})
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"demo: {words}")
    assert ended.stderr.count("\n") == 1


def test_with_pixelhubs_env_it_watches_the_real_gateway_and_database_and_is_alone(
    tmp_path: Path, mariadb: MariaDb, database: sa.URL
) -> None:
    name = str(database.database)
    _fill(database)
    user = mariadb.create_user(_PASSWORD, f"SELECT ON {name}.webhook_raw_logs")
    secret = secrets.token_hex(8)
    infra_key = "the infra key of the tests"
    with SimulatorServer(secret) as gateway:
        simulator = Simulator(gateway.url)
        simulator.put_channel("Pixel12 Digital", reconnect_seconds=1.0)
        (tmp_path / ".env").write_text(
            f"WPP_GATEWAY_BASE_URL={gateway.url}\n"
            f"WPP_GATEWAY_SECRET={encrypt(secret, infra_key, secrets.token_bytes(16))}\n"
            f"INFRA_SECRET_KEY='{infra_key}'\n"
            f"DB_HOST=127.0.0.1\nDB_PORT={mariadb.port}\nDB_NAME={name}\nDB_USER={user}\n"
            f"DB_PASS={_PASSWORD}\n"
        )
        with running_stack(tmp_path) as stack:
            stack.wait_for("watching")
            page = stack.url("hook").removesuffix("/metrics")
            prometheus = stack.url("alerts, 1 h").partition("/api/")[0]
            wait_until(lambda: _runbooks(prometheus) == {page}, "an alert with the page")
            age = 'whatsapp_channel_seconds_since_last_message{channel="Pixel12 Digital"'
            wait_until(lambda: age in get(stack.url("metrics")).text, "the age of the message")
            simulator.drop("Pixel12 Digital")
            stack.wait_for("WhatsAppChannelDisconnected fires")
            stack.wait_for("outcome=reconnected")
            second = run_here(tmp_path, "demo", settings={})
            assert second.returncode == 2
            said = r"demo: another one runs in .*: stop it first\n"
            assert re.fullmatch(said, second.stderr)
            assert secret not in stack.text
            # The demonstration's data is none of a real gateway's, and is deleted by each start.
            assert not (tmp_path / "var" / "demo").exists()
            for path in (tmp_path / "var" / "run").glob("*.log"):
                assert secret not in path.read_text()
                assert _PASSWORD not in path.read_text()


def _runbooks(prometheus: str) -> set[str]:
    """Return the addresses of the hook's page to which the alerts of Prometheus lead."""
    alerts = get(f"{prometheus}/api/v1/alerts").json()["data"]["alerts"]
    links = {alert["annotations"]["runbook_url"] for alert in alerts}
    return {link.partition("/docs/runbook/")[0] for link in links}


def _fill(url: sa.URL) -> None:
    """Make the log with many rows, of which the newest is a message of one channel."""
    engine = sa.create_engine(url)
    create_message_log(engine)
    with engine.begin() as connection:
        insert_message(connection, "imobsites", age_seconds=3600)
        copy = sa.text(
            "INSERT INTO webhook_raw_logs (received_at, event_type, payload_json) "
            "SELECT NOW() - INTERVAL 1 HOUR, event_type, payload_json FROM webhook_raw_logs "
            "LIMIT :rows"
        )
        count = 1
        while count < _ROWS:
            count += connection.execute(copy, {"rows": _ROWS - count}).rowcount
        insert_message(connection, "pixel12digital", age_seconds=60)
    engine.dispose()
