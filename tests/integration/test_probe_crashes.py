"""Probes whose hook dies: what was sent is not sent again, and the bounds hold."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
from tests.support.hooks import SECRET, hook_settings, log_lines, state
from tests.support.message_logs import WrittenLog
from tests.support.mortal_hooks import MortalHook
from tests.support.probing import CHANNELS, World, shorten_waits, world_of
from tests.support.waiting import wait_until

_SECONDS = 60.0
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


@pytest.mark.parametrize("nth", range(1, 6))
def test_wherever_it_dies_it_goes_on_with_one_echo_more_at_most(
    tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
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
        assert world.found(resumes=True) == ("failed", ["loja"])
        sent = Counter(world.sent())
        assert sent.pop("loja") == 1, "the other way round, once"
        # Only who dies before it is known whether it was sent has to send it again.
        assert list(sent.values()) in ([[1], [2]] if nth == 2 else [[1]])


class _Loop:
    """A real hook, a simulated gateway that carries messages, and a message log."""

    def __init__(self, server: SimulatorServer, hook: MortalHook, folder: Path) -> None:
        self.server = server
        self.hook = hook
        self._folder = folder
        self.born: list[SimulatedMessage] = []
        server.gateway.births.listen(self.born.append)

    def suspect(self, channel: str = "loja") -> bool:
        """Post the alert as Alertmanager does; whether it was accepted."""
        one = alert(channel, alertname="WhatsAppChannelSuspect", remediation="probe")
        try:
            return self.hook.post(payload(one)) == 202
        except requests.RequestException:
            return False

    def sent(self) -> list[str]:
        """Return who has sent an echo, or tried to."""
        return [call["channel"] for call in self.server.calls("send")]

    def rows(self, what: str) -> list[Any]:
        return list(state(self._folder, what))

    def dies(self) -> None:
        self.hook.kill()

    def dies_listening(self, channel: str = "loja") -> None:
        """Die while it listens for an echo to a channel that no longer hears."""
        self.server.gateway.act(channel, "deafen")
        self.suspect(channel)
        sent = "SELECT id FROM echoes WHERE sent"
        wait_until(lambda: self.rows(sent), _SECONDS, "an echo to be sent")
        self.dies()

    def lives(self) -> None:
        self.hook.start()
        self.hook.wait()

    def wait_until_idle(self) -> None:
        left = "SELECT key FROM channel WHERE next_at IS NOT NULL"
        wait_until(lambda: not self.rows(left), _SECONDS, "nothing to be wanted")

    def outcomes(self) -> dict[str, str]:
        return dict(
            self.rows("SELECT key, probe_outcome FROM channel WHERE probe_outcome IS NOT NULL")
        )


@contextmanager
def _loop(folder: Path, log: WrittenLog, **settings: str) -> Iterator[_Loop]:
    (folder / "var").mkdir()
    engine = open_message_log(log.engine.url.render_as_string(hide_password=False))
    with SimulatorServer(SECRET, message_log=engine, traffic_seconds=3600) as server:
        numbers = [server.gateway.put(name, {})["number"] for name in CHANNELS]
        named = ",".join(map("=".join, zip(CHANNELS, numbers, strict=True)))
        values = hook_settings(
            server.url,
            MESSAGE_LOG_URL=log.reader.render_as_string(hide_password=False),
            PROBE="echo",
            PROBE_ECHO_NUMBERS=named,
            **settings,
        )
        hook = MortalHook(values, folder, _HURRIED)
        made = _Loop(server, hook, folder)
        hook.start()
        hook.wait()
        # Of its first round, which is there as soon as it starts.
        log.purge()
        try:
            yield made
            carried = {one.receiver for one in made.born if one.receiver is not None}
            assert carried <= set(numbers), "no message to a foreign number"
        finally:
            hook.close()


@pytest.fixture
def loop(tmp_path: Path, sqlite_log: WrittenLog) -> Iterator[_Loop]:
    with _loop(tmp_path, sqlite_log) as made:
        yield made


def test_killed_while_it_sends_what_was_sent_is_heard_and_not_sent_again(loop: _Loop) -> None:
    loop.server.faults.switch_on("send", {"fault": "hang", "effect": True})
    loop.suspect()
    wait_until(lambda: any(not one.outgoing for one in loop.born), _SECONDS, "the echo to arrive")
    loop.dies()
    assert loop.rows("SELECT sent, heard FROM echoes") == [(None, None)]
    loop.server.faults.clear()
    loop.lives()
    loop.wait_until_idle()
    assert len(loop.sent()) == 1
    assert loop.server.calls("qr") == [], "it is alive"


def test_killed_while_it_sends_what_was_not_sent_is_sent_once_more(
    loop: _Loop, tmp_path: Path
) -> None:
    loop.server.faults.switch_on("send", {"fault": "hang", "times": 1})
    loop.suspect()
    wait_until(loop.sent, _SECONDS, "the gateway to be asked")
    loop.dies()
    assert not loop.born
    loop.lives()
    loop.wait_until_idle()
    assert loop.outcomes() == {"loja": "passed"}
    first, again = loop.sent()
    assert first == again
    assert log_lines(tmp_path) == []


def test_killed_while_it_listens_the_same_echo_is_heard(
    loop: _Loop, sqlite_log: WrittenLog
) -> None:
    loop.dies_listening()
    ((token, heard),) = loop.rows("SELECT token, heard FROM echoes")
    assert heard is None
    sqlite_log.write("loja", words=token)
    loop.lives()
    loop.wait_until_idle()
    assert len(loop.sent()) == 1
    assert loop.server.calls("qr") == [], "it is alive"


def test_killed_while_it_listens_who_does_not_hear_is_found_all_the_same(
    loop: _Loop, tmp_path: Path
) -> None:
    loop.server.gateway.put("loja", {"heals": False})
    loop.dies_listening()
    loop.lives()
    found = "SELECT key FROM channel WHERE cause = 'echo_lost'"
    wait_until(lambda: loop.rows(found), _SECONDS, "it to be found")
    loop.dies()
    pairs = Counter(loop.rows("SELECT sender, receiver FROM echoes"))
    assert sum(number for (_, receiver), number in pairs.items() if receiver == "loja") == 1
    assert set(pairs.values()) == {1}, "each was sent once"
    (line,) = log_lines(tmp_path)
    assert "probe=echo outcome=failed" in line


_PER_DAY = 6
_KILLS = 8


def test_the_bounds_hold_however_often_it_is_killed(
    tmp_path: Path, sqlite_log: WrittenLog, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(2**32)
    with capsys.disabled():
        print(f"\nprobe crashes: seed {seed}")  # noqa: T201 - the seed must be seen
    chance = random.Random(seed)
    bounds = {"PROBE_PAUSE_MINUTES": "0.0001", "PROBE_ECHOES_PER_DAY": str(_PER_DAY)}
    with _loop(tmp_path, sqlite_log, **bounds) as loop:
        loop.server.faults.switch_on("send", {"fault": "slow", "seconds": 0.05, "effect": True})
        for _ in range(_KILLS):
            for name in CHANNELS:
                loop.suspect(name)
            time.sleep(chance.random() * 0.3)
            loop.dies()
            loop.lives()

        def reached() -> bool:
            for name in CHANNELS:
                loop.suspect(name)
            took_part = Counter[str]()
            for pair in loop.rows("SELECT sender, receiver FROM echoes"):
                took_part.update(pair)
            return sum(number >= _PER_DAY for number in took_part.values()) >= 2

        wait_until(reached, _SECONDS, "two of three to be at the bound")
        for name in CHANNELS:
            loop.suspect(name)
        loop.wait_until_idle()
        took_part = Counter[str]()
        for message in loop.born:
            if message.outgoing:
                took_part.update([message.sender or "", message.receiver or ""])
        assert len(took_part) == len(CHANNELS)
        assert max(took_part.values()) <= _PER_DAY, f"seed {seed}"
        assert len(loop.sent()) <= len(loop.rows("SELECT id FROM echoes")), "each is noted before"
