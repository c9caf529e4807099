"""Disk full, database gone, and the end while everything hangs: nothing accepted is lost."""

from __future__ import annotations

import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from demo.simulator.client import Simulator
from tests.support.alerts import alert, payload
from tests.support.crashes import Sender
from tests.support.hooks import TOKEN, log_lines, state
from tests.support.mariadb import MariaDb
from tests.support.programs import Program
from tests.support.waiting import TIMEOUT, wait_until

_BEARER = {"Authorization": f"Bearer {TOKEN}"}
_END_SECONDS = 10.0
"""A promise: after SIGTERM the hook is gone within this time."""


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    simulator.put_channel("loja", reconnect_seconds=0)
    return simulator


def _send(program: Program, *alerts: Any) -> int:
    return _post(program, payload(*alerts))


def _post(program: Program, body: bytes) -> int:
    url = f"{program.url}/alerts"
    return requests.post(url, body, headers=_BEARER, timeout=TIMEOUT).status_code


def _attempts(program: Program) -> dict[tuple[str, ...], float]:
    """Return how many repairs ended, by channel, outcome and reason."""
    return program.metrics().all("whatsapp_reconnect_attempts_total", gateway="wpp")


def _limit_files(program: Program, size: int) -> None:
    """Let the system refuse to make any file of the program longer than so many bytes."""
    _, hard = resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def test_while_the_state_cannot_grow_nothing_is_accepted_and_nothing_lost(
    serve: Callable[..., Program], simulator: Simulator, tmp_path: Path
) -> None:
    simulator.put_channel("later", reconnect_seconds=0)
    simulator.drop("loja")
    simulator.drop("later")
    simulator.fault("qr", "hang", times=1)
    program = serve()
    assert _send(program, alert("loja")) == 202
    wait_until(lambda: simulator.requests("qr"), "the call")
    # Less than any page of the database with its head; the lines on stderr find room.
    _limit_files(program, 4096)
    simulator.clear_faults()
    wait_until(lambda: "trying again" in program.stderr, "the outcome not to be stored")
    assert _send(program, alert("later")) == 503
    assert program.get("/-/ready").status_code == 200
    assert state(tmp_path, "SELECT channel, phase FROM channel") == [("loja", "calling")]
    _limit_files(program, resource.RLIM_INFINITY)
    wait_until(lambda: _attempts(program), "the outcome")
    assert _send(program, alert("later")) == 202
    wait_until(lambda: len(_attempts(program)) == 2, "the other outcome")
    assert _attempts(program) == {
        ("loja", "reconnected", "disconnected"): 1,
        ("later", "reconnected", "disconnected"): 1,
    }
    assert [call["channel"] for call in simulator.requests("qr")] == ["loja", "later"]
    assert len(log_lines(tmp_path)) == 2


def test_a_log_on_a_full_disk_costs_no_outcome(
    serve: Callable[..., Program], simulator: Simulator, tmp_path: Path
) -> None:
    simulator.drop("loja")
    program = serve(HOOK_LOG_FILE="/dev/full")
    assert _send(program, alert("loja")) == 202
    wait_until(lambda: _attempts(program), "the outcome")
    assert _attempts(program) == {("loja", "reconnected", "disconnected"): 1}
    assert state(tmp_path, "SELECT outcome FROM repair_log") == [("reconnected",)]
    line = "channel=loja reason=disconnected action=getQr outcome=reconnected attempt=1"
    assert line in program.stderr
    assert "No space left on device" in program.stderr


def test_a_database_that_dies_in_a_storm_and_comes_back_loses_nothing(
    serve: Callable[..., Program], simulator: Simulator
) -> None:
    channels = [f"channel {number:02d}" for number in range(40)]
    for channel in channels:
        simulator.put_channel(channel, reconnect_seconds=0)
        simulator.drop(channel)
    simulator.fault("qr", "slow", seconds=0.2)
    # A power cut: what it has answered it must have kept.
    with MariaDb({"innodb-flush-log-at-trx-commit": "1"}) as server:
        url = server.url(server.create_database())
        text = url.render_as_string(hide_password=False)
        hooks = [serve(HOOK_STATE_URL=text, RECONNECT_COOLDOWN_SECONDS="300") for _ in range(2)]
        storm = Sender([partial(_post, hook) for hook in hooks], channels, seed=0)
        storm.start()

        def wait_for_six(status: int) -> None:
            wanted = storm.answers.count(status) + 6
            wait_until(lambda: storm.answers.count(status) >= wanted, f"six {status}")

        wait_until(lambda: len(simulator.requests("qr")) >= 4, "the first calls")
        server.kill()
        wait_for_six(503)
        server.start()
        wait_for_six(202)
        storm.ending.set()
        storm.join()
        assert (set(storm.answers), storm.unanswered) == ({202, 503}, 0)
        engine = sa.create_engine(url)
        wait_until(lambda: _undone(engine) == 0, "all repairs to end")
        with engine.connect() as connection:
            ended = connection.scalars(_ENDED).all()
        engine.dispose()
    assert len(ended) == len(set(ended)), "one repair each"
    # What was stored just before the power went is repaired, although its answer was 503.
    assert {channel for channel, _ in storm.sent} <= set(ended)
    called = [call["channel"] for call in simulator.requests("qr")]
    assert sorted(called) == sorted(ended), "one call each"


_UNDONE = sa.text(
    "SELECT COUNT(*) FROM channel WHERE next_at IS NOT NULL"
    " AND (phase <> 'idle' OR called_at IS NULL)"
)
_ENDED = sa.text("SELECT channel FROM repair_log")


def _undone(engine: sa.Engine) -> int:
    """Return how many repairs are due or under way; what waits for the end of a pause is not."""
    with engine.connect() as connection:
        return int(connection.scalar(_UNDONE) or 0)


@contextmanager
def _sent(program: Program, body: bytes) -> Iterator[socket.socket]:
    """Send a notification without waiting for the answer."""
    where = ("127.0.0.1", int(program.url.rpartition(":")[2]))
    with socket.create_connection(where, timeout=TIMEOUT) as connection:
        head = f"POST /alerts HTTP/1.1\r\nAuthorization: {_BEARER['Authorization']}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        yield connection


def _is_connected(simulator: Simulator) -> bool:
    channel = simulator.channel("loja")
    return channel is not None and channel["status"] == "connected"


def test_the_end_comes_in_time_though_database_and_gateway_hang(
    serve: Callable[..., Program], simulator: Simulator, mariadb: MariaDb, database: sa.URL
) -> None:
    simulator.drop("loja")
    simulator.fault("qr", "hang", effect=True, times=1)
    program = serve(
        HOOK_STATE_URL=database.render_as_string(hide_password=False), WPP_GATEWAY_QR_TIMEOUT="3600"
    )
    assert _send(program, alert("loja")) == 202
    wait_until(lambda: simulator.requests("qr"), "the call")
    with mariadb.frozen(), _sent(program, payload(alert("other"))) as waiting:
        assert program.get("/-/healthy").ok
        started = time.monotonic()
        assert program.end(signal.SIGTERM) == 0
        assert time.monotonic() - started < _END_SECONDS
        assert b" 202 " not in waiting.recv(100), "it was not accepted"
    simulator.clear_faults()
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        # The lease of who could not give it back would end by itself after ten seconds.
        connection.execute(sa.text("UPDATE gateway SET lease_until = 1"))
        connection.execute(sa.text("UPDATE channel SET next_at = 1"))
    engine.dispose()
    # The call that was hanging has done its work all the same.
    wait_until(lambda: _is_connected(simulator), "the session to be back")
    again = serve(HOOK_STATE_URL=database.render_as_string(hide_password=False))
    wait_until(lambda: _attempts(again), "the outcome")
    assert _attempts(again) == {("loja", "recovered", "disconnected"): 1}
    assert len(simulator.requests("qr")) == 1
