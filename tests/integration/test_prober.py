"""A suspicion from the alert to its end: the queue, the bounds, and the repair of who is dead."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from reconnect_hook import echo, probe, probe_limits, probe_worker
from reconnect_hook.alerts import RepairCause
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.probe_limits import ProbeRepository
from reconnect_hook.supervisor import GatewayController, HookSupervisor, open_store
from tests.support.hooks import SECRET, hook_settings, log_lines, state
from tests.support.message_logs import WrittenLog
from tests.support.probing import world_of
from tests.support.states import firing, resolved
from tests.support.waiting import wait_until
from zapwatch.config import parse


class Hook:
    """One hook on a simulated WPPConnect Server, which has a query."""

    def __init__(self, simulator: Simulator, fleet: HookSupervisor, metrics: HookMetrics) -> None:
        self.simulator = simulator
        self.fleet = fleet
        self.metrics = metrics

    @property
    def service(self) -> GatewayController:
        return self.fleet.services["wpp"]

    def suspect(self, channel: str = "loja") -> None:
        self.service.intake.accept([firing(channel, RepairCause.SUSPECT)])
        self.service.prober.wake()

    def wait_until_idle(self) -> None:
        wait_until(lambda: not _rows("active_key IS NOT NULL"), 30, "the queue to be empty")


def _rows(condition: str) -> list[Any]:
    return list(state(Path.cwd(), f"SELECT key, reason, outcome FROM repairs WHERE {condition}"))


@pytest.fixture
def hook(tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe, "SECOND_QUERY_SECONDS", 0.05)
    monkeypatch.setattr("reconnect_hook.repair._PROBE_AFTER", 0.0)
    monkeypatch.setattr("reconnect_hook.repair._INITIALIZING_PAUSE", 0.05)
    monkeypatch.setattr("zapwatch.gateways.wppconnect._SETTLE_SECONDS", 0.0)
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
        metrics = HookMetrics()
        fleet = HookSupervisor(settings, open_store(settings), metrics)
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

    monkeypatch.setattr(ProbeRepository, "end", die)
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


def test_whoever_takes_up_what_a_person_has_asked_knows_it_again(
    hook: Hook, tmp_path: Path
) -> None:
    hook.simulator.fault("query", "hang")
    hook.service.intake.accept([firing("loja", RepairCause.ASKED)])
    hook.service.prober.wake()
    begun = "SELECT repairs.id FROM probes JOIN repairs ON repairs.id = probes.job"
    wait_until(lambda: state(tmp_path, begun), 30, "it to begin")
    hook.simulator.clear_faults()
    hook.wait_until_idle()


def test_a_query_that_passed_does_not_hide_the_silence(hook: Hook) -> None:
    hook.simulator.deafen("loja")
    hook.suspect()
    wait_until(lambda: hook.simulator.requests("query", "loja"), 30, "the channel to be asked")
    hook.wait_until_idle()
    assert _rows("1") == []
    hook.service.intake.accept([firing("loja", RepairCause.SILENT)])
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


_NAMES = ("loja", "obra", "casa", "nova")


@contextmanager
def _all_suspected(
    folder: Path, log: WrittenLog, monkeypatch: pytest.MonkeyPatch, *, gap: float
) -> Iterator[None]:
    """Let a hook that asks by echo be told of all channels at once, as after an outage."""
    monkeypatch.setattr(echo, "_LISTEN_PAUSE", 0.02)
    monkeypatch.setattr("reconnect_hook.worker_pool.IDLE_SECONDS", 0.05)
    for module in (probe_limits, probe_worker):
        monkeypatch.setattr(module, "ECHO_GAP_SECONDS", gap)
    monkeypatch.chdir(folder)
    with world_of(folder, log, "wrapper", *_NAMES) as world:
        numbers = ",".join(f"{name}={number}" for name, number in world.numbers.items())
        values = hook_settings(
            world.settings.base_url,
            MESSAGE_LOG_URL=log.reader.render_as_string(hide_password=False),
            PROBE="echo",
            PROBE_ECHO_NUMBERS=numbers,
        )
        settings = parse(values)
        fleet = HookSupervisor(settings, open_store(settings), HookMetrics())
        fleet.follow(settings.gateways)
        service = fleet.services["wpp"]
        service.intake.accept([firing(name, RepairCause.SUSPECT) for name in _NAMES])
        service.prober.wake()
        yield
        fleet.stop(5)


def test_after_an_outage_echoes_go_one_after_the_other(
    tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _all_suspected(tmp_path, sqlite_log, monkeypatch, gap=0.5):
        alive = "SELECT key FROM probes WHERE outcome = 'passed'"
        wait_until(lambda: len(state(tmp_path, alive)) == len(_NAMES), 60, "all to have heard")
    times = [at for (at,) in state(tmp_path, "SELECT sent_at FROM echoes ORDER BY sent_at")]
    assert len(times) == len(_NAMES)
    assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(times))


def test_those_who_wait_for_their_echo_are_spread_out(
    tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever they are multiplied by, up to four who wait: no two waits are alike.
    chance = SimpleNamespace(random=itertools.cycle([0.1, 0.5, 0.9]).__next__)
    monkeypatch.setattr(probe_worker, "_chance", chance)
    with _all_suspected(tmp_path, sqlite_log, monkeypatch, gap=600.0):
        others = len(_NAMES) - 1
        put_back = "SELECT due_at - accepted_at FROM repairs WHERE due_at > accepted_at + 599"
        wait_until(lambda: len(state(tmp_path, put_back)) == others, 60, "all others to wait")
        waits = sorted(seconds for (seconds,) in state(tmp_path, put_back))
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(waits))
    assert len(state(tmp_path, "SELECT id FROM echoes")) == 1


def test_a_repair_takes_the_place_of_a_question(hook: Hook) -> None:
    hook.fleet.stop(5)  # so that both wait
    intake = hook.service.intake
    assert intake.accept([firing("loja", RepairCause.SUSPECT)]) == ["accepted"]
    assert intake.accept([firing("loja", RepairCause.SUSPECT)]) == ["coalesced"]
    assert intake.accept([resolved("loja", RepairCause.SUSPECT)]) == ["ignored"]
    assert intake.accept([firing("loja", RepairCause.DISCONNECTED)]) == ["accepted"]
    assert _rows("1") == [("loja", "disconnected", None)]
    assert intake.accept([firing("loja", RepairCause.SUSPECT)]) == ["coalesced"]
    assert _rows("1") == [("loja", "disconnected", None)]
