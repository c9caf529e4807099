"""A suspicion from the alert to its end: the queue, the bounds, and the repair of who is dead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconnect_hook.alerts import Reason
from reconnect_hook.fleet import Fleet
from reconnect_hook.metrics import Metrics
from reconnect_hook.probes import examination
from reconnect_hook.service import Service, open_store
from reconnect_hook.state.probes import ProbeBook
from stack.simulator.client import Simulator
from stack.simulator.server import SimulatorServer
from tests.support.hooks import SECRET, hook_settings, log_lines, state
from tests.support.message_logs import WrittenLog
from tests.support.states import firing, resolved
from tests.support.waiting import wait_until
from whatsapp.settings import parse


class Hook:
    """One hook on a simulated WPPConnect Server, which has a query."""

    def __init__(self, simulator: Simulator, fleet: Fleet) -> None:
        self.simulator = simulator
        self.fleet = fleet

    @property
    def service(self) -> Service:
        return self.fleet.services["wpp"]

    def suspect(self, channel: str = "loja") -> None:
        self.service.intake.accept([firing(channel, Reason.SUSPECT)])
        self.service.prober.wake()

    def wait_until_idle(self) -> None:
        wait_until(lambda: not _rows("active_key IS NOT NULL"), 30, "the queue to be empty")


def _rows(condition: str) -> list[Any]:
    return list(state(Path.cwd(), f"SELECT key, reason, outcome FROM repairs WHERE {condition}"))


@pytest.fixture
def hook(tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examination, "SECOND_QUERY_SECONDS", 0.05)
    monkeypatch.setattr("reconnect_hook.repairs.asking._PROBE_AFTER", 0.0)
    with SimulatorServer(SECRET, api="wppconnect") as server:
        simulator = Simulator(server.url)
        simulator.put_channel("loja", reconnect_seconds=0.0)
        simulator.put_channel("obra")
        values = hook_settings(
            server.url,
            MESSAGE_LOG_URL=sqlite_log.reader.render_as_string(hide_password=False),
        )
        (tmp_path / "gateways.yaml").write_text(
            f"gateways:\n- name: wpp\n  type: wppconnect\n  url: {server.url}\n  secret: {SECRET}\n"
        )
        for name in ("WPP_GATEWAY_BASE_URL", "WPP_GATEWAY_SECRET"):
            del values[name]
        settings = parse({**values, "GATEWAYS_FILE": str(tmp_path / "gateways.yaml")})
        fleet = Fleet(settings, open_store(settings), Metrics())
        fleet.follow(settings.gateways)
        yield Hook(simulator, fleet)
        fleet.stop(5)


def test_a_channel_that_answers_is_left_in_peace(hook: Hook, tmp_path: Path) -> None:
    hook.suspect()
    wait_until(lambda: hook.simulator.requests("query", "loja"), 30, "the channel to be asked")
    hook.wait_until_idle()
    assert log_lines(tmp_path) == []
    assert _rows("1") == []
    asked = len(hook.simulator.requests("query"))
    hook.suspect()
    wait_until(lambda: _rows("holder IS NULL AND due_at > accepted_at + 600"), 30, "it to wait")
    assert len(hook.simulator.requests("query")) == asked, "not again within 15 minutes"


def test_a_channel_that_does_not_answer_is_repaired_at_once(hook: Hook, tmp_path: Path) -> None:
    hook.simulator.zombie("loja")
    hook.suspect()
    wait_until(lambda: _rows("outcome IS NOT NULL"), 60, "the repair to end")
    ((key, reason, _),) = _rows("outcome IS NOT NULL")
    assert (key, reason) == ("loja", "probe_failed")
    probed, repaired = log_lines(tmp_path)
    assert "channel=loja probe=query outcome=failed" in probed
    assert "reason=probe_failed" in repaired
    assert not hook.simulator.requests("query", "obra")


def test_who_is_dead_is_repaired_although_the_hook_dies_as_it_notes_that(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise RuntimeError("stands for the end of the process")

    monkeypatch.setattr(ProbeBook, "end", die)
    hook.simulator.zombie("loja")
    hook.suspect()
    wait_until(lambda: _rows("reason = 'probe_failed'"), 60, "its repair")


def test_who_is_not_listed_or_not_connected_or_was_heard_is_not_asked(
    hook: Hook, sqlite_log: WrittenLog
) -> None:
    hook.simulator.drop("obra")
    sqlite_log.write("loja")
    for channel in ("nova", "obra", "loja"):
        hook.suspect(channel)
    hook.wait_until_idle()
    assert hook.simulator.requests("query") == []


def test_a_repair_takes_the_place_of_a_question(hook: Hook) -> None:
    hook.fleet.stop(5)  # so that both wait
    intake = hook.service.intake
    assert intake.accept([firing("loja", Reason.SUSPECT)]) == ["accepted"]
    assert intake.accept([firing("loja", Reason.SUSPECT)]) == ["coalesced"]
    assert intake.accept([resolved("loja", Reason.SUSPECT)]) == ["ignored"]
    assert intake.accept([firing("loja", Reason.DISCONNECTED)]) == ["accepted"]
    assert _rows("1") == [("loja", "disconnected", None)]
    assert intake.accept([firing("loja", Reason.SUSPECT)]) == ["coalesced"]
    assert _rows("1") == [("loja", "disconnected", None)]
