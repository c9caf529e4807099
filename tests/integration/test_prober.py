"""A suspicion from the alert to its end: the queue, the bounds, and the repair of who is dead."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconnect_hook.alerts import Reason
from reconnect_hook.fleet import Fleet
from reconnect_hook.metrics import Metrics
from reconnect_hook.probes import echoes, examination, prober
from reconnect_hook.service import Service, open_store
from reconnect_hook.state import probes
from reconnect_hook.state.probes import ProbeBook
from stack.simulator.client import Simulator
from stack.simulator.server import SimulatorServer
from tests.support.hooks import SECRET, hook_settings, log_lines, state
from tests.support.message_logs import WrittenLog
from tests.support.probing import world_of
from tests.support.states import firing, resolved
from tests.support.waiting import wait_until
from whatsapp.settings import parse


class Hook:
    """One hook on a simulated WPPConnect Server, which has a query."""

    def __init__(self, simulator: Simulator, fleet: Fleet, metrics: Metrics) -> None:
        self.simulator = simulator
        self.fleet = fleet
        self.metrics = metrics

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
    monkeypatch.setattr("reconnect_hook.repairs.asking._INITIALIZING_PAUSE", 0.05)
    monkeypatch.setattr("whatsapp.gateways.wppconnect._SETTLE_SECONDS", 0.0)
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
        metrics = Metrics()
        fleet = Fleet(settings, open_store(settings), metrics)
        fleet.follow(settings.gateways)
        yield Hook(simulator, fleet, metrics)
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
    counted = {
        (sample.labels["channel"], sample.labels["kind"], sample.labels["outcome"]): sample.value
        for family in hook.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "whatsapp_channel_probes_total"
    }
    proof = ("loja", "query", "passed")
    assert counted == {("loja", "query", "failed"): 1, proof: 1}, "the proof of the repair too"
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


def test_a_query_that_passed_does_not_hide_the_silence(hook: Hook) -> None:
    hook.simulator.deafen("loja")
    hook.suspect()
    wait_until(lambda: hook.simulator.requests("query", "loja"), 30, "the channel to be asked")
    hook.wait_until_idle()
    assert _rows("1") == []
    hook.service.intake.accept([firing("loja", Reason.SILENT)])
    hook.service.workers.wake()
    wait_until(lambda: _rows("outcome IS NOT NULL"), 60, "the repair to end")
    assert hook.simulator.requests("close_session", "loja"), "it was reconnected all the same"


def test_nobody_is_asked_while_the_gateway_or_the_log_is_down(
    hook: Hook, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = "holder IS NULL AND due_at > accepted_at + 1"
    hook.simulator.fault("list", "html_502")
    hook.suspect()
    wait_until(lambda: _rows(waits), 30, "the list to have failed")
    hook.simulator.clear_faults()
    sqlite_log.run("ALTER TABLE webhook_raw_logs RENAME TO away")
    hook.suspect("obra")
    wait_until(lambda: _rows(f"key = 'obra' AND {waits}"), 30, "the log to have failed")
    assert hook.simulator.requests("query") == []


def test_after_an_outage_echoes_go_one_after_the_other(
    tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echoes, "_LISTEN_PAUSE", 0.02)
    monkeypatch.setattr("reconnect_hook.repairs.crew.IDLE_SECONDS", 0.05)
    for module in (probes, prober):
        monkeypatch.setattr(module, "ECHO_GAP_SECONDS", 0.5)
    names = ("loja", "obra", "casa", "nova")
    with world_of(tmp_path, sqlite_log, "wrapper", *names) as world:
        numbers = ",".join(f"{name}={number}" for name, number in world.numbers.items())
        values = hook_settings(
            world.settings.base_url,
            MESSAGE_LOG_URL=sqlite_log.reader.render_as_string(hide_password=False),
            PROBE="echo",
            PROBE_ECHO_NUMBERS=numbers,
        )
        monkeypatch.chdir(tmp_path)
        settings = parse(values)
        fleet = Fleet(settings, open_store(settings), Metrics())
        fleet.follow(settings.gateways)
        service = fleet.services["wpp"]
        service.intake.accept([firing(name, Reason.SUSPECT) for name in names])
        service.prober.wake()
        alive = "SELECT key FROM probes WHERE outcome = 'passed'"
        wait_until(lambda: len(state(tmp_path, alive)) == len(names), 60, "all to have heard")
        fleet.stop(5)
        times = [at for (at,) in state(tmp_path, "SELECT sent_at FROM echoes ORDER BY sent_at")]
        assert len(times) == len(names)
        assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(times))


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
