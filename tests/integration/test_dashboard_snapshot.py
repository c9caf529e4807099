"""The snapshot that all pages share: what is in it, what it says is missing, when it is read."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from reconnect_hook.alerts import AlertWriter
from reconnect_hook.dashboard import snapshot
from reconnect_hook.dashboard.channel_view import ChannelHealth
from reconnect_hook.dashboard.readings import DirectReader, Prometheus
from reconnect_hook.dashboard.snapshot import (
    ActiveProblem,
    DashboardCache,
    DashboardSnapshot,
    GatewayPanel,
    GatewayPanels,
    Problem,
)
from reconnect_hook.dashboard.timeline import Shares
from reconnect_hook.dashboard.views import FragmentCache
from reconnect_hook.event_log import AttemptSteps, LogEntry
from reconnect_hook.history import RepairHistory
from reconnect_hook.models import Action, AskedBy, Backoff, GatewayRow, Outcome, RepairCause
from reconnect_hook.operator_actions import OperatorActions
from reconnect_hook.repository import StoredChanges, store_changes
from reconnect_hook.schema import open_state
from reconnect_hook.supervisor import GatewayController
from tests.support.clock import AheadClock
from tests.support.http_servers import Exposition
from tests.support.states import state_url
from tests.support.threads import at_once
from tests.support.waiting import wait_until
from zapwatch.alertmanager import AlertmanagerApi
from zapwatch.channels import Channel, Status
from zapwatch.config import GatewaySettings, Settings
from zapwatch.config.readers import MessageSourceKind
from zapwatch.gateways.base import (
    ChannelList,
    Gateway,
    GatewayError,
    GatewayErrorKind,
    Operation,
)


class ListedGateway:
    """A gateway of which only the list is asked."""

    def __init__(self) -> None:
        self.lists = 0
        self.status = Status.CONNECTED
        self.is_down = False

    def can_spare_list(self) -> bool:
        return True

    def list_channels(self) -> ChannelList:
        self.lists += 1
        if self.is_down:
            raise GatewayError(Operation.LIST, GatewayErrorKind.CONNECTION, "made up")
        return ChannelList((Channel("Loja", self.status),))


class Scene:
    """A board whose Prometheus and Alertmanager answer what the test wants."""

    def __init__(self, directory: Path) -> None:
        self.server = Exposition("")
        self.database = open_state(state_url(directory))
        intake = AlertWriter(self.database, "wpp", Backoff(300))
        self.actions = OperatorActions(self.database, "wpp", intake, lambda: None)
        self.history = RepairHistory(self.database, "wpp", Backoff(300))
        url = f"http://{self.server.at}"
        prometheus = Prometheus(url)
        self.gateway = ListedGateway()
        none: dict[str, Any] = {"messages": MessageSourceKind.NONE, "requests_per_month": None}
        self.settings = settings = SimpleNamespace(name="wpp", **none)
        parts = SimpleNamespace(
            history=self.history, gateway=settings, client=self.gateway, actions=self.actions
        )
        self.clock = AheadClock()
        panel = GatewayPanel(
            cast(GatewayController, parts), prometheus, cast(Settings, None), None, self.clock
        )
        listed = cast(Gateway, self.gateway), cast(GatewaySettings, settings)
        panel.direct = DirectReader(*listed, lambda _listed: None, clock=self.clock)
        panels = cast(GatewayPanels, SimpleNamespace(all={"wpp": panel}))
        self.board = DashboardCache(panels, prometheus, AlertmanagerApi(url), clock=self.clock)
        self.say(gateway_up=1, message_log_up=1)

    def say(self, *, alert: str = "", age: float = 5, connected: int = 1, **up: int) -> None:
        """Let Prometheus know of a channel, and of what is up."""
        samples = [
            {"metric": _metric(name), "value": [0, str(value)]} for name, value in up.items()
        ]
        if up.get("gateway_up"):
            labels = _metric("channel_connected", channel="Loja")
            samples.append({"metric": labels, "value": [0, str(connected)]})
        labels = _metric("channel_seconds_since_last_message", channel="Loja")
        samples.append({"metric": labels, "value": [0, str(age)]})
        alerts = [
            {
                "state": "firing",
                "labels": {"alertname": name, "gateway": "wpp", "channel": "Loja"},
            }
            for name in alert.split()
        ]
        answer = {"result": samples, "alerts": alerts}
        self.server.text = json.dumps({"data": answer})

    def look(self) -> DashboardSnapshot:
        return self.board.look(now=True)


_MANUAL = ("Loja", "Loja", True, RepairCause.MANUAL, AskedBy.PAGE)
_REPAIRED = LogEntry(*_MANUAL, 0.0, 1, Action.GET_QR, Outcome.RECONNECTED, "")


def _told(*troubles: Problem) -> tuple[ActiveProblem, ...]:
    shared = {Problem.STATE, Problem.PROMETHEUS, Problem.ALERTMANAGER}
    return tuple(ActiveProblem(one, None if one in shared else "wpp") for one in troubles)


def _metric(name: str, **more: str) -> dict[str, str]:
    return {"__name__": f"whatsapp_{name}", "gateway": "wpp", **more}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(snapshot, "_ASK_AGAIN_SECONDS", 0.0)
    made = Scene(tmp_path)
    yield made
    made.server.close()
    made.database.close()


def test_nothing_is_missing_where_all_is_well(scene: Scene) -> None:
    snapshot = scene.look()
    assert snapshot.problems == ()
    row = snapshot.rows["wpp Loja"]
    assert (row.channel, row.kind) == ("Loja", ChannelHealth.CONNECTED)
    # A channel that left the gateway leaves the page.
    scene.server.text = scene.server.text.replace("Loja", "Nova")
    assert list(scene.look().rows) == ["wpp Nova"]


def test_a_row_has_its_connected_share_as_long_as_prometheus_answers(scene: Scene) -> None:
    answer = json.loads(scene.server.text)
    answer["data"]["result"] += [
        {"metric": {"is": name, "channel": "Loja"}, "value": [0, value]}
        for name, value in (("day", "0.5"), ("month", "0.99"), ("days", "12"))
    ]
    scene.server.text = json.dumps(answer)
    known = Shares(0.5, 0.99, 12.0)
    wait_until(lambda: scene.look().rows["wpp Loja"].shares == known, "the shares")
    scene.server.text = "<html>"
    assert scene.look().rows["wpp Loja"].shares == Shares()


def test_a_problem_that_only_an_alert_shows_is_told(scene: Scene) -> None:
    answer = json.loads(scene.server.text)
    for alert, gateway, problem in (
        ("WhatsAppGatewayUnknown", "loja", Problem.GATEWAY_UNKNOWN),
        ("WhatsAppChannelsLeftOut", "wpp", Problem.LEFT_OUT),
        ("WhatsAppAlertDeliveryFailing", None, Problem.DELIVERY),
        ("WhatsAppConfigReloadFailing", None, Problem.SETTINGS),
    ):
        labels = {"alertname": alert} | ({"gateway": gateway} if gateway else {})
        answer["data"]["alerts"] = [{"state": "firing", "labels": labels}]
        scene.server.text = json.dumps(answer)
        assert scene.look().problems == (ActiveProblem(problem, gateway),)


def test_a_log_or_gateway_that_is_down_is_told_and_its_channels_stay(scene: Scene) -> None:
    scene.say(gateway_up=1, message_log_up=0)
    assert scene.look().problems == _told(Problem.LOG)
    scene.say(gateway_up=0, message_log_up=1)
    snapshot = scene.look()
    assert snapshot.problems == _told(Problem.GATEWAY)
    row = snapshot.rows["wpp Loja"]
    assert row.kind is ChannelHealth.UNKNOWN
    assert row.last_message is not None, "its messages are read all the same"
    # A Prometheus that was killed returns the status of before for five minutes.
    scene.say(gateway_up=1, message_log_up=1)
    up = json.dumps({"metric": _metric("gateway_up"), "value": [0, "1"]})
    assert up in scene.server.text
    scene.server.text = scene.server.text.replace(up, up.replace('"1"', '"0"'))
    assert scene.look().rows["wpp Loja"].kind is ChannelHealth.UNKNOWN


def test_an_exporter_that_is_gone_is_told_and_the_gateway_is_asked(scene: Scene) -> None:
    scene.look()
    assert scene.gateway.lists == 0
    firing = {"state": "firing", "labels": {"alertname": "A", "gateway": "wpp", "channel": "Loja"}}
    scene.server.text = json.dumps({"data": {"result": [], "alerts": [firing]}})
    snapshot = scene.look()
    assert snapshot.problems == _told(Problem.EXPORTER)
    row = snapshot.rows["wpp Loja"]
    assert (row.kind, row.unattended) == (ChannelHealth.CONNECTED, True)
    assert [alert.name for alert in row.alerts or ()] == ["A"]
    assert scene.gateway.lists == 1


def test_without_prometheus_one_list_in_ten_seconds_serves_all(scene: Scene) -> None:
    scene.server.text = "<html>"
    scene.gateway.status = Status.DISCONNECTED
    for _ in range(3):
        snapshot = scene.look()
    row = snapshot.rows["wpp Loja"]
    assert (row.channel, row.kind, row.said) == ("Loja", ChannelHealth.DISCONNECTED, "disconnected")
    assert row.needs_attention, "no repair begins by itself"
    assert row.alerts is None
    assert snapshot.problems == _told(Problem.PROMETHEUS, Problem.ALERTMANAGER)
    assert (snapshot.blind, scene.gateway.lists) == (frozenset(), 1)
    scene.gateway.status = Status.CONNECTED
    scene.clock.ahead += 11
    assert _until(scene, ChannelHealth.CONNECTED).problems == snapshot.problems
    assert scene.gateway.lists == 2
    scene.say(gateway_up=1, message_log_up=1)
    assert scene.look().problems == ()


def test_a_channel_that_only_the_newer_of_two_lists_has_stays(scene: Scene) -> None:
    scene.say(gateway_up=1, message_log_up=1)
    told = scene.server.text

    def names(text: str) -> list[str]:
        scene.server.text = text
        return sorted(row.channel for row in scene.look().rows.values())

    assert names("<html>") == ["Loja"]
    # The list that Prometheus has may be older than the gateway's own.
    assert names(told.replace("Loja", "Nova")) == ["Loja", "Nova"]
    assert scene.look().rows["wpp Loja"].kind is ChannelHealth.CONNECTED
    assert names("<html>") == ["Loja", "Nova"]
    assert names(told) == ["Loja"], "Nova has left Prometheus, which had it"
    scene.clock.ahead += 100
    assert names(told.replace("Loja", "Nova")) == ["Nova"]


def test_where_requests_are_counted_the_page_says_when_it_has_listed(scene: Scene) -> None:
    scene.settings.requests_per_month = 1000
    assert not scene.look().problems
    scene.server.text = "<html>"
    (budget,) = (one for one in scene.look().problems if one.problem is Problem.BUDGET)
    assert budget.gateway == "wpp"
    assert budget.listed_at == pytest.approx(scene.clock.time(), abs=300)


def test_a_repair_that_ended_after_the_list_counts(scene: Scene) -> None:
    scene.server.text = "<html>"
    scene.gateway.status = Status.DISCONNECTED
    assert scene.look().rows["wpp Loja"].kind is ChannelHealth.DISCONNECTED
    with scene.database.write() as connection:
        at = time.time() + 1
        steps = AttemptSteps(at, {})
        rows = (GatewayRow(), GatewayRow())
        store_changes("wpp", StoredChanges(connection, at, steps, *rows, entries=[_REPAIRED]))
        connection.exec_driver_sql(
            "INSERT INTO channel (gateway, key, channel, listed, last_status)"
            " VALUES ('wpp', 'Loja', 'Loja', 1, 'connected')"
        )
    assert scene.look().rows["wpp Loja"].kind is ChannelHealth.CONNECTED
    assert scene.gateway.lists == 1


def test_while_nobody_can_list_the_channels_nothing_is_claimed_of_them(scene: Scene) -> None:
    scene.look()
    scene.server.text = "<html>"
    scene.gateway.is_down = True
    snapshot = scene.look()
    assert snapshot.problems == _told(Problem.PROMETHEUS, Problem.GATEWAY, Problem.ALERTMANAGER)
    assert snapshot.blind == {"wpp"}
    assert snapshot.rows["wpp Loja"].kind is ChannelHealth.UNKNOWN


def _until(scene: Scene, kind: ChannelHealth) -> DashboardSnapshot:
    wait_until(lambda: scene.look().rows["wpp Loja"].kind is kind, "the next list")
    return scene.look()


def test_a_gateway_that_rests_and_a_state_that_cannot_be_read_are_told(scene: Scene) -> None:
    with scene.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO gateway (gateway, failures, failed_at, rests_until)"
            f" VALUES ('wpp', 5, 1, {time.time() + 100})"
        )
    assert scene.look().problems == _told(Problem.GATEWAY_RESTS)
    with scene.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE channel RENAME TO away")
    snapshot = scene.look()
    assert snapshot.problems == _told(Problem.STATE)
    row = snapshot.rows["wpp Loja"]
    assert row.kind is ChannelHealth.CONNECTED, "what Prometheus knows is there"


def test_the_answer_to_a_press_during_a_read_shows_its_effect(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, shown = scene.board, list[DashboardSnapshot]()
    make, press = board._make, threading.Thread(target=lambda: shown.append(scene.look()))

    def press_meanwhile(before: DashboardSnapshot) -> DashboardSnapshot:
        made = make(before)
        if press.ident is None:
            scene.actions.pause("Loja", None)
            wanted_at = board._wanted_at
            press.start()
            wait_until(lambda: board._wanted_at > wanted_at, "the press")
        return made

    monkeypatch.setattr(board, "_make", press_meanwhile)
    scene.look()
    press.join()
    assert shown[0].rows["wpp Loja"].paused is not None


def test_the_number_changes_with_what_is_shown_and_with_nothing_else(scene: Scene) -> None:
    # The strips of the last day are drawn in a thread, and are the last that is new.
    wait_until(lambda: scene.look().number == scene.look().number, "the page to be whole")
    first = scene.look()
    assert scene.look().number == first.number
    scene.say(gateway_up=1, message_log_up=1, age=1)
    assert scene.look().number == first.number, "a message a moment later is no news"
    scene.say(gateway_up=1, message_log_up=1, alert="WhatsAppChannelSilent")
    second = scene.look()
    assert second.number > first.number
    assert second.changed["wpp Loja"] == second.number
    scene.actions.pause("Loja", None)
    third = scene.look()
    assert third.number > second.number
    assert third.rows["wpp Loja"].paused is not None
    assert third.problems_changed == first.problems_changed
    scene.say(gateway_up=1, message_log_up=0, alert="WhatsAppChannelSilent")
    fourth = scene.look()
    assert fourth.problems_changed == fourth.number
    assert fourth.changed["wpp Loja"] == third.changed["wpp Loja"]
    # Prometheus lists alerts of several groups in any order.
    scene.say(gateway_up=1, message_log_up=1, alert="WhatsAppChannelSilent WhatsAppChannelFlapping")
    both = scene.look()
    assert both.number > fourth.number
    scene.say(gateway_up=1, message_log_up=1, alert="WhatsAppChannelFlapping WhatsAppChannelSilent")
    assert scene.look().number == both.number


@pytest.mark.parametrize("name", ["board", "strips"])
def test_the_board_is_read_after_a_thread_that_could_not_be_started(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with suppress(RuntimeError):
            scene.look()
    assert scene.look().rows
    wait_until(lambda: scene.board._strips, "the strips")


def test_many_looks_at_once_are_one_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    present = Mock(wraps=scene.history.present)
    monkeypatch.setattr(scene.history, "present", present)
    monkeypatch.setattr(snapshot, "_FRESH_SECONDS", 3600.0)
    for _ in range(100):
        assert scene.board.look().rows
    assert present.call_count == 1


def test_viewers_of_a_change_render_it_once() -> None:
    pieces, rendered = FragmentCache(10), threading.Barrier(2)
    versions: list[str] = []

    def render() -> str:
        versions.append("new")
        with suppress(threading.BrokenBarrierError):
            rendered.wait(0.5)  # for another viewer, who must not come
        return "<b>"

    at_once(*[partial(pieces.get, ("en", "loja"), 2, render)] * 2)
    assert versions == ["new"]
