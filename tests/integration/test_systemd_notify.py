"""What the programs tell systemd: that they are ready, that they work, and that they end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET, hook_settings
from tests.support.notify_socket import NotifySocket
from tests.support.programs import Fork, environment
from tests.support.raw_server import Conversation, RawServer, Talk, answering
from tests.support.waiting import wait_until

_PROGRAMS = [("exporter",), ("reconnect_hook", "serve")]
_VOUCH = """
import sys
from zapwatch.server import vouch_for
vouch_for(sys.argv[1], int(sys.argv[2]))
sys.stdin.read()
"""


@pytest.fixture
def systemd(program: tuple[str, ...], tmp_path: Path) -> Iterator[NotifySocket]:
    """Listen on a file for the exporter, and on an abstract socket for the hook."""
    with NotifySocket(tmp_path / "notify", abstract="serve" in program) as made:
        yield made


@pytest.mark.parametrize("program", _PROGRAMS, ids=lambda program: program[0])
def test_a_program_is_ready_works_and_ends(
    program: tuple[str, ...], tmp_path: Path, systemd: NotifySocket
) -> None:
    with SimulatorServer(SECRET) as gateway:
        settings = hook_settings(gateway.url, EXPORTER_LISTEN="[::]:0", **systemd.settings(0.5))
        with Fork(tmp_path, *program, settings=settings) as running:
            systemd.wait_for("WATCHDOG=1", 3)
            assert systemd.told[0] == "READY=1"
            assert systemd.told.count("READY=1") == 1
            running.end()
            assert systemd.told[-1] == "STOPPING=1"


@pytest.mark.parametrize("program", _PROGRAMS[:1], ids=lambda program: program[0])
def test_without_a_watchdog_it_is_said_once(
    program: tuple[str, ...], tmp_path: Path, systemd: NotifySocket
) -> None:
    settings = hook_settings("http://127.0.0.1:1", EXPORTER_LISTEN="127.0.0.1:0")
    # A watchdog that waits for another process, such as this one's parent.
    settings |= {**systemd.settings(0.5), "WATCHDOG_PID": str(os.getpid())}
    with Fork(tmp_path, *program, settings=settings) as running:
        systemd.wait_for("READY=1")
        running.end()
        assert systemd.told == ["READY=1", "STOPPING=1"]


@contextmanager
def _vouching(url: str, settings: dict[str, str]) -> Iterator[None]:
    at = urlsplit(url)
    process = subprocess.Popen(
        [sys.executable, "-c", _VOUCH, str(at.hostname), str(at.port)],
        env=environment(settings),
        stdin=subprocess.PIPE,
    )
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def _silence(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.drip([b"H"], 600)


def _nonsense(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(b"nonsense\n")


@pytest.mark.parametrize(
    "trouble",
    [_silence, _nonsense, answering(b"", status=503)],
    ids=["silence", "nonsense", "503"],
)
def test_a_server_that_no_longer_answers_is_not_vouched_for_until_it_does_again(
    trouble: Talk, tmp_path: Path
) -> None:
    well = False

    def talk(conversation: Conversation) -> None:
        (answering(b"") if well else trouble)(conversation)

    with (
        NotifySocket(tmp_path / "notify") as systemd,
        RawServer(talk) as server,
        _vouching(server.url, systemd.settings(0.3)),
    ):
        wait_until(lambda: len(server.requests) > 2, "it to be asked in vain")
        assert systemd.told == [], "it is not ready yet"
        well = True
        systemd.wait_for("WATCHDOG=1")
        well = False
        asked = len(server.requests)
        wait_until(lambda: len(server.requests) > asked + 1, "it to be asked in vain")
        before = len(systemd.told)
        wait_until(lambda: len(server.requests) > asked + 4, "it to be asked in vain")
        assert len(systemd.told) == before
        well = True
        systemd.wait_for("WATCHDOG=1", systemd.told.count("WATCHDOG=1") + 1)
        assert systemd.told[0] == "READY=1"
        assert set(systemd.told[1:]) == {"WATCHDOG=1"}
