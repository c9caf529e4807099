"""The simulator as a process of its own: how it starts, serves, refuses and ends."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from demo.simulator import __main__ as program
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.certificates import self_signed
from tests.support.hooks import SECRET
from tests.support.simulated import Api
from tests.support.waiting import wait_until
from zapwatch.gateways.waha import WahaGateway

_ROOT = Path(__file__).parents[3]
_LISTENING = "simulator listening on "
_TAKEN = "127.0.0.1:TAKEN"
_HELD = ("hang", "slow", "drip")


def _has_met(simulator: Simulator, fault: str) -> bool:
    return fault in [call["fault"] for call in simulator.requests()]


def test_it_serves_as_told_until_it_is_told_to_end(tmp_path: Path) -> None:
    file = tmp_path / "messages.db"
    arguments = ("--api", "waha", "--listen", "localhost:0", "--secret-env", "OTHER")
    traffic = ("--message-log", f"sqlite:///{file}", "--traffic-seconds", "0.01")
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-m", "demo.simulator", *arguments, *traffic],
        cwd=_ROOT,
        env=os.environ | {"OTHER": SECRET},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, ExitStack() as clients:
        clients.callback(process.kill)
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith(f"{_LISTENING}http://localhost:")
        url = line.removeprefix(_LISTENING).rstrip("\n")
        simulator = Simulator(url)
        simulator.put_channel("loja")
        gateway = WahaGateway(url, SECRET)
        assert [channel.id for channel in gateway.list_channels().channels] == ["loja"]
        gateway.close()
        wait_until(lambda: simulator.state()["traffic"]["messages"] >= 3, "messages")
        for fault in _HELD:
            simulator.fault("list", fault, seconds=3600, times=1)
            address = urlsplit(url)
            client = socket.create_connection((str(address.hostname), address.port or 0))
            clients.enter_context(client)
            head = f"Host: gateway\r\nX-Api-Key: {SECRET}"
            client.sendall(f"GET /api/sessions?all=true HTTP/1.1\r\n{head}\r\n\r\n".encode())
            wait_until(partial(_has_met, simulator, fault), f"the call that {fault} holds")
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30) == ("", ""), "in spite of calls that are held"
        assert process.returncode == 0
    with pytest.raises(requests.ConnectionError):
        simulator.state()
    with closing(sqlite3.connect(file)) as log:
        assert log.execute("SELECT count(*) FROM webhook_raw_logs").fetchone()[0] >= 3


@pytest.mark.parametrize("fault", [None, "reset", "truncated", "hang"])
def test_it_serves_https_with_the_same_faults(fault: str | None, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with SimulatorServer(SECRET, tls=(certificate, key)) as server:
        simulator = Simulator(server.url, verify=str(certificate))
        address = urlsplit(server.url)
        if fault is None:
            with socket.create_connection((str(address.hostname), address.port or 0)):
                # That client never shakes hands, which must not keep others from being served.
                simulator.put_channel("loja", session="unpaired", qr_form="http_url")
                answer = Api(server.url)("GET", "channels/loja/qr", verify=str(certificate))
            assert answer.json()["qr"].startswith(f"{server.url}/sim/qr-images/")
            return
        simulator.fault("list", fault)
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


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--secret-env OTHER", "simulator: OTHER is not set: put the gateway's secret into it"),
        (f"--listen {_TAKEN}", f"simulator: cannot serve on {_TAKEN}: "),
        ("--tls-cert a.pem", "simulator: --tls-cert and --tls-key go together"),
        ("--tls-cert no.pem --tls-key no.pem", "simulator: cannot serve on 127.0.0.1:0: "),
        ("--listen 8443", "argument --listen: '8443' is not HOST:PORT"),
        ("--listen 127.0.0.1:65536", "argument --listen: '127.0.0.1:65536' is not HOST:PORT"),
        ("--traffic-seconds 1e300", "argument --traffic-seconds: '1e300' is not a number above 0"),
        ("--message-log mysql+nodriver://a:not-a-password@db/log", "argument --message-log: it is"),
        ("--message-log mysql+pymysql://a:not-a-password@db:p/x", "argument --message-log: it is"),
    ],
)
def test_what_it_cannot_start_with_is_told_in_one_line(
    arguments: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("SIMULATOR_SECRET", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr("sys.argv", ["simulator", *arguments.replace(_TAKEN, address).split()])
        try:
            code = program.main()
        except SystemExit as ended:
            code = int(str(ended.code))
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert line.replace(_TAKEN, address) in said.err.splitlines()[-1]
    assert "not-a-password" not in said.err
