"""The simulator as a process of its own: how it starts, serves, refuses and ends."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from demo.simulator.apis.registry import APIS
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.certificates import self_signed
from tests.support.hooks import SECRET
from tests.support.simulated import Api
from tests.support.waiting import wait_until
from zapwatch.gateways.registry import ADAPTERS

_ROOT = Path(__file__).parents[3]
_LISTENING = "simulator listening on "


def _launch(
    *arguments: str | Path, variable: str = "SIMULATOR_SECRET", secret: str = SECRET
) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SIMULATOR_SECRET"}
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-m", "demo.simulator", *arguments],
        cwd=_ROOT,
        env=environment | {variable: secret},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Running:
    """A simulator that listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        line = process.stdout.readline()
        if not line.startswith(_LISTENING):
            process.kill()
            pytest.fail(f"it said {line!r}, then {process.communicate()}")
        self.process = process
        self.url = line.removeprefix(_LISTENING).rstrip("\n")
        self.api = Api(self.url)
        self.simulator = Simulator(self.url)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal, and return the exit code and all that was printed after the start."""
        self.process.send_signal(number)
        output = "".join(self.process.communicate(timeout=30))
        return self.process.returncode, output


def _has_met(running: Running, fault: str) -> bool:
    return fault in [call["fault"] for call in running.simulator.requests()]


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    launched: list[subprocess.Popen[str]] = []

    def launch(*arguments: str | Path, **options: str) -> Running:
        launched.append(_launch(*arguments, **options))
        return Running(launched[-1])

    yield launch
    for process in launched:
        process.kill()
        process.communicate()


def _refusal(*arguments: str | Path, **options: str) -> str:
    """Start a simulator that must refuse to, and return what it says."""
    with _launch(*arguments, **options) as process:
        try:
            output, complaint = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 2
    assert output == ""
    assert "Traceback" not in complaint
    assert "Warning" not in complaint
    return complaint


@pytest.mark.parametrize("api", APIS)
def test_it_speaks_the_api_that_it_is_told_to(start: Start, api: str) -> None:
    running = start("--api", api)
    running.simulator.put_channel("loja")

    gateway = ADAPTERS[api](running.url, SECRET)
    assert [channel.id for channel in gateway.list_channels().channels] == ["loja"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end(start: Start, number: int) -> None:
    running = start()
    running.simulator.put_channel("loja")
    assert running.url.startswith("http://127.0.0.1:")
    assert running.api.statuses() == {"loja": "connected"}
    assert running.api("GET", "channels", "wrong").status_code == 401

    assert running.end(number) == (0, "")

    with pytest.raises(requests.ConnectionError):
        running.api("GET", "channels")


def test_it_ends_in_spite_of_calls_that_are_held(start: Start) -> None:
    running = start()
    address = urlsplit(running.url)
    with ExitStack() as clients:
        for fault in ("hang", "slow", "drip"):
            running.simulator.fault("list", fault, seconds=3600, times=1)
            client = socket.create_connection((str(address.hostname), address.port or 0))
            clients.enter_context(client)
            client.sendall(b"GET /api/channels HTTP/1.1\r\nHost: gateway\r\n\r\n")
            wait_until(partial(_has_met, running, fault), 20, f"the call that {fault} holds")

        assert running.end() == (0, "")


def test_it_can_be_told_another_address_and_variable(start: Start) -> None:
    running = start(
        *("--listen", "localhost:0", "--secret-env", "OTHER"),
        variable="OTHER",
        secret="another-secret",
    )

    assert running.url.startswith("http://localhost:")
    assert running.api("GET", "channels", "another-secret").status_code == 200
    assert running.api("GET", "channels").status_code == 401


def test_it_listens_on_ipv6_where_there_is_any(start: Start) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        assert _refusal("--listen", "[::1]:0").startswith("simulator: cannot serve on ::1:0: ")
    else:
        running = start("--listen", "[::1]:0")
        assert running.url.startswith("http://[::1]:")
        assert running.api.statuses() == {}


def test_it_writes_messages_at_the_pace_it_is_told(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "messages.db"
    running = start("--message-log", f"sqlite:///{file}", "--traffic-seconds", "0.01")
    running.simulator.put_channel("loja")

    wait_until(lambda: running.simulator.state()["traffic"]["messages"] >= 3, 20, "messages")

    assert running.simulator.state()["traffic"]["seconds"] == 0.01
    assert running.end() == (0, "")
    with closing(sqlite3.connect(file)) as log:
        assert log.execute("SELECT count(*) FROM webhook_raw_logs").fetchone()[0] >= 3


def test_it_serves_https(start: Start, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    running = start("--tls-cert", certificate, "--tls-key", key)
    address = urlsplit(running.url)
    assert address.scheme == "https"
    simulator = Simulator(running.url, verify=str(certificate))

    with socket.create_connection((str(address.hostname), address.port or 0)):
        # That client never shakes hands, which must not keep others from being served.
        simulator.put_channel("loja", session="unpaired", qr_form="http_url")
        answer = running.api("GET", "channels/loja/qr", verify=str(certificate))
    assert answer.json()["qr"].startswith(f"{running.url}/sim/qr-images/")
    with pytest.raises(requests.exceptions.SSLError):
        running.api("GET", "channels")
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{address.netloc}/api/channels", timeout=20)
    assert running.end() == (0, "")


@pytest.mark.parametrize("fault", ["reset", "truncated", "hang"])
def test_faults_are_the_same_over_https(fault: str, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with SimulatorServer(SECRET, tls=(certificate, key)) as server:
        Simulator(server.url, verify=str(certificate)).fault("list", fault)

        with pytest.raises(requests.RequestException) as caught:
            requests.get(f"{server.url}/api/channels", timeout=1, verify=str(certificate))

    assert isinstance(
        caught.value,
        {
            "reset": requests.ConnectionError,
            "truncated": requests.exceptions.ChunkedEncodingError,
            "hang": requests.ReadTimeout,
        }[fault],
    )


@pytest.mark.parametrize("secret", ["", None])
def test_without_a_secret_it_does_not_start(secret: str | None) -> None:
    variable = "SIMULATOR_SECRET" if secret == "" else "ANOTHER"

    said = _refusal(variable=variable, secret=secret or "")

    assert said == "simulator: SIMULATOR_SECRET is not set: put the gateway's secret into it\n"


def test_a_port_in_use_is_told_in_one_line() -> None:
    with SimulatorServer(SECRET) as server:
        port = urlsplit(server.url).port

        said = _refusal("--listen", f"127.0.0.1:{port}")

        assert said.startswith(f"simulator: cannot serve on 127.0.0.1:{port}: ")
        assert "Address already in use" in said
        assert said.count("\n") == 1
        assert Simulator(server.url).state()["requests"] == 0, "the first goes on"


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)

    for arguments in (("--tls-cert", certificate), ("--tls-key", key)):
        said = _refusal(*arguments)
        assert said == "simulator: --tls-cert and --tls-key go together\n"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_that_is_none_is_told_in_one_line(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "certificate.pem"
    if content is not None:
        file.write_text(content)

    said = _refusal("--tls-cert", file, "--tls-key", file)

    assert said.startswith("simulator: cannot serve on 127.0.0.1:0: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--listen", "8443"), "argument --listen: '8443' is not HOST:PORT"),
        (("--listen", "127.0.0.1:65536"), "argument --listen: '127.0.0.1:65536' is not HOST:PORT"),
        *(
            (
                ("--traffic-seconds", pace),
                f"argument --traffic-seconds: '{pace}' is not a number above 0, up to 1000000000",
            )
            for pace in ("fast", "0", "1e300")
        ),
        *(
            (
                ("--message-log", url),
                "argument --message-log: it is not a SQLAlchemy URL that can be used",
            )
            for url in (
                "mysql+nodriver://somebody:not-a-password@db/log",
                "mysql+pymysql://somebody:not-a-password@db:port/log",
            )
        ),
    ],
)
def test_arguments_that_cannot_be_used_are_told(arguments: tuple[str, str], line: str) -> None:
    said = _refusal(*arguments)

    assert said.splitlines()[-1] == f"python -m demo.simulator: error: {line}"
    assert "not-a-password" not in said
