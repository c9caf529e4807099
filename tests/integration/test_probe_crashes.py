"""Probes whose hook dies: what was sent is not sent again, and the bounds hold."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from reconnect_hook import echo
from tests.support.alerts import alert, payload
from tests.support.hooks import SECRET, hook_settings, state
from tests.support.message_logs import WrittenLog
from tests.support.mortal_hooks import MortalHook
from tests.support.probing import CHANNELS, World, shorten_waits, world_of
from tests.support.waiting import wait_until

_HURRIED = {
    "reconnect_hook.echo.DELIVERY_SECONDS": 0.5,
    "reconnect_hook.echo.ECHO_SECONDS": 1.0,
    "reconnect_hook.echo._LISTEN_PAUSE": 0.02,
    "reconnect_hook.probe.GAP_SECONDS": 0.02,
    "reconnect_hook.probe_limits.ECHO_GAP_SECONDS": 0.0,
    "reconnect_hook.probe.ECHO_GAP_SECONDS": 0.05,
    "reconnect_hook.decision._ALERT_SECONDS": 0.0,
}


class DiedError(Exception):
    """Stands for the end of the process, where a test needs it at one exact moment."""


class _Dying:
    """A gateway, and a wait, that end the hook at the ``nth`` moment of those that matter."""

    def __init__(self, world: World, nth: int) -> None:
        self._client: Any = world.means.client
        self._left = nth
        self._waited = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def _moment(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise DiedError

    def send_text(self, *arguments: Any) -> str | None:
        self._moment()
        message_id: str | None = self._client.send_text(*arguments)
        self._waited = False
        self._moment()
        return message_id

    def wait(self, _seconds: float) -> None:
        if not self._waited:
            self._waited = True
            self._moment()
        time.sleep(0.02)


@pytest.fixture
def died(
    tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch, nth: int
) -> Iterator[World]:
    """Make a world whose hook has died while it probed ``loja``, which no longer hears."""
    shorten_waits(monkeypatch)
    monkeypatch.setattr(echo, "ECHO_SECONDS", 0.5)
    with world_of(tmp_path, sqlite_log) as world:
        world.simulator.deafen("loja")
        alive = world.means
        dying: Any = _Dying(world, nth)
        world.means = replace(alive, client=dying, wait=dying.wait)
        with pytest.raises(DiedError):
            world.probe()
        world.means = alive
        yield world


@pytest.mark.parametrize("nth", range(1, 6))
def test_wherever_it_dies_it_goes_on_with_one_echo_more_at_most(died: World, nth: int) -> None:
    assert died.found(resumes=True) == ("failed", ["loja"])
    sent = Counter(died.sent())
    assert sent.pop("loja") == 1, "the other way round, once"
    # Only who dies before it is known whether it was sent has to send it again.
    assert list(sent.values()) in ([[1], [2]] if nth == 2 else [[1]])


@pytest.mark.parametrize("nth", range(1, 4))
def test_an_echo_that_was_sent_before_it_died_is_heard_and_not_sent_again(
    died: World, nth: int
) -> None:
    died.simulator.connect("loja")
    if nth > 1:
        (sent,) = died.book.earlier_echoes("loja")
        died.log.write("loja", words=sent.token)
    assert died.found(resumes=True) == ("passed", [])
    assert len(died.sent()) == 1


_PER_DAY = 6
_KILLS = 8


def _suspect(hook: MortalHook) -> None:
    """Post alerts about all channels as Alertmanager does, whether the hook lives or not."""
    for name in CHANNELS:
        one = alert(name, alertname="WhatsAppChannelSuspect", remediation="probe")
        with suppress(requests.RequestException):
            hook.post(payload(one))


def test_the_bounds_hold_however_often_it_is_killed(
    tmp_path: Path, sqlite_log: WrittenLog, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(2**32)
    with capsys.disabled():
        print(f"\nprobe crashes: seed {seed}")  # noqa: T201 - the seed must be seen
    chance = random.Random(seed)
    (tmp_path / "var").mkdir()
    engine = open_message_log(sqlite_log.engine.url.render_as_string(hide_password=False))
    with SimulatorServer(SECRET, message_log=engine, traffic_seconds=3600) as server:
        born: list[SimulatedMessage] = []
        server.gateway.births.listen(born.append)
        server.faults.switch_on("send", {"fault": "slow", "seconds": 0.05, "effect": True})
        numbers = [server.gateway.put(name, {})["number"] for name in CHANNELS]
        settings = hook_settings(
            server.url,
            MESSAGE_LOG_URL=sqlite_log.reader.render_as_string(hide_password=False),
            PROBE="echo",
            PROBE_ECHO_NUMBERS=",".join(map("=".join, zip(CHANNELS, numbers, strict=True))),
            PROBE_PAUSE_MINUTES="0.0001",
            PROBE_ECHOES_PER_DAY=str(_PER_DAY),
        )
        with closing(MortalHook(settings, tmp_path, _HURRIED)) as hook:
            hook.start()
            hook.wait()
            # Of its first round, which is there as soon as it starts.
            sqlite_log.purge()
            for _ in range(_KILLS):
                _suspect(hook)
                time.sleep(chance.random() * 0.3)
                hook.kill()
                hook.start()
                hook.wait()

            def reached() -> bool:
                _suspect(hook)
                pairs = state(tmp_path, "SELECT sender, receiver FROM echoes")
                took_part = Counter(itertools.chain(*pairs))
                return sum(number >= _PER_DAY for number in took_part.values()) >= 2

            wait_until(reached, "two of three to be at the bound")
            _suspect(hook)
            left = "SELECT key FROM channel WHERE next_at IS NOT NULL"
            wait_until(lambda: not state(tmp_path, left), "nothing to be wanted")
        carried = [(one.sender, one.receiver) for one in born if one.outgoing]
        took_part = Counter(itertools.chain(*carried))
        assert took_part.keys() == set(numbers), "no message to a foreign number"
        assert max(took_part.values()) <= _PER_DAY, f"seed {seed}"
        noted = state(tmp_path, "SELECT id FROM echoes")
        assert len(server.calls("send")) <= len(noted), "each is noted before"
