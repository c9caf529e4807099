"""A gateway that posts its events: the exporter, ``check`` and a repair, as processes."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import requests

from demo.simulator.client import Simulator
from tests.support.guides import blocks
from tests.support.hooks import SECRET, hook_settings, log_lines
from tests.support.programs import Fork, Program, run_here
from tests.support.waiting import TIMEOUT, wait_until

_TOKEN = "not-a-real-token-for-messages"
_AGE = "whatsapp_channel_seconds_since_last_message"


def settings(url: str, directory: Path) -> dict[str, str]:
    return {
        "WPP_GATEWAY_BASE_URL": url,
        "WPP_GATEWAY_SECRET": SECRET,
        "MESSAGE_SOURCE": "events",
        "MESSAGES_TOKEN": _TOKEN,
        "MESSAGES_STATE_URL": f"sqlite:///{directory}/var/messages.sqlite3",
        "EXPORTER_LISTEN": "127.0.0.1:0",
        "EXPORTER_POLL_SECONDS": "0.1",
    }


def exporter(directory: Path, simulator: Simulator) -> Program:
    return Fork(directory, "exporter", settings=settings(simulator.url, directory))


def post(program: Program, channel: str, *, age: float = 0.0, body: str = "Hello") -> None:
    event = {
        "event": "onmessage",
        "sessionId": channel,
        "timestamp": time.time() - age,
        "from": "5500000000001@c.us",
        "body": body,
    }
    answer = requests.post(
        f"{program.url}/messages/wpp?token={_TOKEN}", json=event, timeout=TIMEOUT
    )
    assert answer.status_code == 202, answer.text


def age_of(program: Program, channel: str) -> float | None:
    return program.metrics().get(_AGE, channel=channel)


def post_as_documented(program: Program) -> None:
    """Post a message of the channel ``quiet`` by the call that the page about messages shows."""
    (call,) = (block for block in blocks("messages.md") if "/messages/wpp" in block)
    for example, real in {
        "http://127.0.0.1:9861": program.url,
        "a-long-random-text": _TOKEN,
        "YOUR-CHANNEL": "quiet",
    }.items():
        assert example in call
        call = call.replace(example, real)
    done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("HTTP/1.1 202 ")


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    simulator.put_channel("Loja 1")
    simulator.put_channel("quiet")
    return simulator


def test_ages_come_from_events_and_go_on_after_a_kill(tmp_path: Path, simulator: Simulator) -> None:
    with exporter(tmp_path, simulator) as program:
        wait_until(lambda: program.get("/-/ready").status_code == 200, "both sources")
        post(program, "loja1", age=1000, body="A word that nobody keeps")
        wait_until(lambda: (age_of(program, "Loja 1") or 0) >= 1000, "the age")
        metrics = program.metrics()
        assert metrics.get(_AGE, channel="quiet") is None
        counted = metrics.all("whatsapp_channel_messages_total", gateway="wpp")
        assert counted["Loja 1", "in"] == 1
        assert metrics.get("whatsapp_message_log_up") == 1
        wait_until(
            lambda: program.metrics().get("whatsapp_message_events_total", result="message") == 1,
            "the count of events",
        )
        post_as_documented(program)
        wait_until(lambda: age_of(program, "quiet") is not None, "its age")
        program.end(signal.SIGKILL)
    with exporter(tmp_path, simulator) as program:
        wait_until(lambda: (age_of(program, "Loja 1") or 0) >= 1000, "the age of before")
        assert program.end() == 0
    # Without the write-ahead log, as a backup may have it.
    [file] = (tmp_path / "var").glob("*.sqlite3")
    with closing(sqlite3.connect(shutil.copy(file, tmp_path / "alone.sqlite3"))) as connection:
        dump = "\n".join(connection.iterdump())
    assert "Loja 1" in dump
    assert "nobody keeps" not in dump
    assert "5500000000001" not in dump


def test_a_silent_channel_is_repaired_and_an_event_is_the_proof(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.zombie("Loja 1")
    hook = hook_settings(simulator.url, RECONNECT_VERIFY_SECONDS="60", SILENT_HOURS="0.5")
    hook |= settings(simulator.url, tmp_path)
    del hook["MESSAGE_LOG_URL"]
    with exporter(tmp_path, simulator) as program:
        wait_until(lambda: program.get("/-/ready").status_code == 200, "both sources")
        # Later than an hour it would count from now, as what was kept back.
        post(program, "Loja 1", age=3000)
        post(program, "quiet", age=60)
        wait_until(lambda: (age_of(program, "Loja 1") or 0) >= 3000, "the age")

        def answer() -> None:
            wait_until(lambda: simulator.requests(operation="qr"), "the repair")
            post(program, "Loja 1")

        answering = threading.Thread(target=answer)
        answering.start()
        ended = run_here(tmp_path, "reconnect_hook", "check", settings=hook)
        answering.join(TIMEOUT)
        assert (ended.returncode, ended.stdout) == (0, "Loja 1: silent; reconnected\n")
        [line] = log_lines(tmp_path)
        assert "outcome=reconnected" in line


def test_without_an_exporter_check_says_that_it_cannot_tell(
    tmp_path: Path, simulator: Simulator
) -> None:
    hook = hook_settings(simulator.url) | settings(simulator.url, tmp_path)
    ended = run_here(tmp_path, "reconnect_hook", "check", "--dry-run", settings=hook)
    assert ended.returncode == 1
    assert "silent channels cannot be detected" in ended.stderr
    assert not (tmp_path / "var").exists()
