"""An exporter process with a real MariaDB and a gateway that lists any number of channels."""

from __future__ import annotations

import http.client
import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy as sa

from demo.simulator.schema import create_message_log
from tests.support.mariadb import MariaDb
from tests.support.programs import Program
from tests.support.raw_server import Conversation, RawServer

AS_PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
    "Accept-Encoding": "gzip",
}
_HEARD = sa.text(
    "INSERT INTO webhook_raw_logs (event_type, payload_json)"
    " SELECT 'message', CONCAT('{\"sessionId\": \"channel', seq, '\"}')"
    " FROM seq_0_to_99999 WHERE seq < :channels"
)


class Gateway:
    """A gateway with ``channels`` connected channels; a list call takes ``seconds``."""

    def __init__(self, channels: int) -> None:
        self.seconds = 0.0
        self.calls = 0
        self.ending = threading.Event()
        entries = [
            {"id": f"channel{number}", "name": f"Channel {number}", "status": "connected"}
            for number in range(channels)
        ]
        body = json.dumps({"success": True, "channels": entries, "total": channels}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self._answer = head.encode() + b"\r\n\r\n" + body

    def talk(self, conversation: Conversation) -> None:
        """Answer the calls of one connection."""
        while conversation.read_request():
            self.calls += 1
            self.ending.wait(self.seconds)
            conversation.send(self._answer)


class AtWork:
    """The running exporter, its gateway and its message log."""

    def __init__(self, program: Program, gateway: Gateway, log: sa.Engine, channels: int) -> None:
        self.program = program
        self.gateway = gateway
        self._log = log
        self._channels = channels
        self._where = urlsplit(program.url).netloc

    def messages(self) -> None:
        """Write one message for each channel."""
        with self._log.begin() as connection:
            connection.execute(_HEARD, {"channels": self._channels})

    def scrape(self) -> tuple[float, bytes]:
        """Scrape as Prometheus does; return duration in seconds and body."""
        started = time.perf_counter()
        connection = http.client.HTTPConnection(self._where, timeout=60)
        connection.request("GET", "/metrics", headers=AS_PROMETHEUS)
        body = connection.getresponse().read()
        seconds = time.perf_counter() - started
        connection.close()
        return seconds, body

    def post(self, body: bytes, token: str) -> float:
        """Post one event as the gateway does; return the duration in seconds."""
        connection = http.client.HTTPConnection(self._where, timeout=60)
        connection.connect()
        started = time.perf_counter()
        connection.request(
            "POST", "/messages/wpp", body, headers={"Authorization": f"Bearer {token}"}
        )
        answer = connection.getresponse()
        answer.read()
        seconds = time.perf_counter() - started
        connection.close()
        assert answer.status == 202, answer.status
        return seconds

    def polls(self) -> int:
        """Return the number of polls of the message log."""
        text = self.program.get("/metrics").text
        found = re.search(
            r"^whatsapp_message_log_poll_duration_seconds_count\S* (\S+)", text, re.MULTILINE
        )
        return int(float(found[1])) if found else 0

    def resident_megabytes(self) -> float:
        """Return the process's resident memory in MiB."""
        status = Path(f"/proc/{self.program.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1024


@contextmanager
def exporter_at_work(
    server: MariaDb,
    channels: int,
    poll_seconds: float,
    *,
    url: sa.URL | None = None,
    more: Mapping[str, str] | None = None,
) -> Iterator[AtWork]:
    """Start an exporter, with ``more`` settings, on a log in which each channel has a message.

    The log is a new one unless a ``url`` is given.
    """
    url = url or server.url(server.create_database())
    engine = sa.create_engine(url)
    create_message_log(engine)
    gateway = Gateway(channels)
    with tempfile.TemporaryDirectory() as folder, RawServer(gateway.talk) as listening:
        settings = {
            "WPP_GATEWAY_BASE_URL": listening.url,
            "WPP_GATEWAY_SECRET": "not-a-real-secret",
            "WPP_GATEWAY_TIMEOUT": "120",
            "MESSAGE_LOG_URL": url.render_as_string(hide_password=False),
            "EXPORTER_LISTEN": "127.0.0.1:0",
            "EXPORTER_POLL_SECONDS": str(poll_seconds),
            **(more or {}),
        }
        with Program(Path(folder), "exporter", settings=settings) as program:
            at_work = AtWork(program, gateway, engine, channels)
            at_work.messages()
            yield at_work
            gateway.ending.set()
    engine.dispose()
