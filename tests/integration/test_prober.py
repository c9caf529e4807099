"""A suspicion from the alert to its end: rows that wait, bounds, and the repair of who is dead."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from reconnect_hook import recorder
from reconnect_hook.models import AskedBy, Intent, Phase, ProbeOutcome, RepairCause
from reconnect_hook.schema import channel, echoes
from tests.support.world import GATEWAY, Options, Turn, World
from zapwatch.channels import ByName, Channel, Status
from zapwatch.config.readers import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.gateways.base import GatewayErrorKind, WebhookConfig
from zapwatch.messages.message import ReceivedMessage

_PROBE = ProbeSettings(ProbeKind.QUERY, ByName({}), 60.0, 15.0, 6, ByName({}), "ping")
_BY_QUERY = Options(can_query=True, probe=_PROBE)
_BY_ECHO = Options(probe=replace(_PROBE, kind=ProbeKind.ECHO, echoes_per_day=100))
_DELIVERY = ProbeKind.DELIVERY
_NAMES = ("loja", "obra", "casa", "nova")


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., World]:
    """Make worlds whose channels are connected."""

    def make(options: Options = _BY_QUERY, *, hooks: int = 1) -> World:
        made = World(tmp_path, options, hooks=hooks)
        request.addfinalizer(made.close)
        for name in _NAMES:
            made.put(name)
        return made

    return make


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()


def _suspect(world: World, name: str = "loja") -> str:
    return world.alert(name, RepairCause.SUSPECT)


def _times(world: World, call: str = "query", name: str = "loja") -> list[float]:
    return [at for made, about, at in world.gateway.calls if (made, about) == (call, name)]


def _is_open(world: World, name: str = "loja") -> bool:
    row = world.row(name)
    return row is not None and row.is_open


def _ends(world: World) -> dict[str, str]:
    """Return how the last probes ended, by channel."""
    with world.hook.database.read() as connection:
        rows = sa.select(channel.c.key, channel.c.probe_outcome)
        return {row[0]: row[1] for row in connection.execute(rows) if row[1] is not None}


def test_a_channel_that_answers_is_left_in_peace(world: World) -> None:
    assert _suspect(world) == "accepted"
    world.run(10)
    assert len(_times(world)) == 1
    assert not _is_open(world)
    assert (world.lines(), world.ended()) == ([], [])
    world.restart()
    assert _suspect(world) == "accepted"
    world.skip(780)
    world.run(20)
    assert len(_times(world)) == 1, "not again within 15 minutes"
    world.run(200)
    first, second = _times(world)
    assert 900 <= second - first < 935
    assert not _is_open(world)


def test_a_channel_that_does_not_answer_is_repaired_at_once(world: World) -> None:
    world.gateway.gone.add("loja")
    _suspect(world)
    world.run(200)
    (ended,) = world.ended()
    assert (ended.reason, ended.outcome) == ("probe_failed", "requested")
    first, second, proof = _times(world)
    assert 60 <= second - first < 65, "two queries that fail, a minute apart"
    (repaired,) = _times(world, "reconnect")
    assert second <= repaired < second + 3
    assert proof > repaired
    counted = {
        (sample.labels["channel"], sample.labels["kind"], sample.labels["outcome"]): sample.value
        for family in world.hook.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "whatsapp_channel_probes_total"
    }
    proof_of_it = ("loja", "query", "passed")
    assert counted == {("loja", "query", "failed"): 1, proof_of_it: 1}
    probed, line = world.lines()
    assert "channel=loja probe=query outcome=failed" in probed
    assert "reason=probe_failed" in line
    assert not _times(world, name="obra")


def test_a_person_does_not_wait_for_the_second_query(world: World) -> None:
    world.gateway.gone.add("loja")
    _suspect(world)
    world.run(30)
    assert len(_times(world)) == 1
    assert world.hook.actions.probe_now("loja")
    row = world.row()
    assert row is not None
    assert row.cause is RepairCause.ASKED
    world.run(5)
    assert len(_times(world)) == 2


def test_nobody_waits_in_a_thread_for_the_second_query(world: World) -> None:
    for name in _NAMES:
        world.gateway.gone.add(name)
        _suspect(world, name)
    world.run(30)
    assert len(world.hook.workers.probes) == 0
    row = world.row()
    assert row is not None
    assert (row.phase, row.intent) == (Phase.IDLE, Intent.PROBE)
    world.run(60)
    assert all(world.ended(name) or len(_times(world, name=name)) >= 2 for name in _NAMES)


def test_who_has_waited_longest_is_asked_first(make: Callable[..., World]) -> None:
    world = make(replace(_BY_QUERY, workers=1, list_takes=5.0))
    for name in _NAMES[::-1]:
        _suspect(world, name)
        world.run(1)
    world.run(10)
    assert [name for _, name, _ in world.gateway.calls] == [*_NAMES[::-1]]


def test_one_query_that_fails_proves_nothing(world: World) -> None:
    world.gateway.gone.add("loja")
    _suspect(world)
    world.run(30)
    world.gateway.gone.clear()
    world.run(60)
    assert len(_times(world)) == 2
    assert (_ends(world), world.ended()) == ({"loja": "passed"}, [])


@pytest.mark.parametrize(
    ("cause", "outcomes"), [(RepairCause.SUSPECT, []), (RepairCause.SILENT, ["requested"])]
)
def test_a_fault_in_what_a_probe_found_stops_no_other(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cause: RepairCause,
    outcomes: list[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "note_end", lambda *_: 1 // 0)
        world.alert("loja", cause)
        world.run(15)
        world.put("obra", Status.DISCONNECTED)
        world.gateway.on_call = lambda _call, name: world.put(name)
        world.alert("obra")
        world.run(60)
    assert world.outcomes("obra") == ["reconnected"]
    assert "channel 'loja': internal error" in caplog.messages
    assert len(_times(world)) == 1
    assert world.outcomes() == outcomes
    row = world.row()
    assert row is not None
    assert row.next_at is None
    assert [one.outcome for one in world.hook.history.logged("loja")] == (outcomes or ["unable"])


def test_no_probe_proves_a_repair_in_a_pause(world: World) -> None:
    world.alert("loja", RepairCause.SILENT)
    world.run(2)
    world.hook.actions.pause("loja", None)
    world.run(100)
    assert world.gateway.calls_of("loja") == ["reconnect"]
    assert world.outcomes() == ["requested"]


def test_a_query_that_failed_long_ago_is_no_first_one(world: World) -> None:
    world.gateway.gone.add("loja")
    _suspect(world)
    world.run(10)
    world.clock.seconds += 700
    world.run(5)
    assert len(_times(world)) == 2
    assert world.ended() == [], "it counts as the first of two again"
    world.run(70)
    assert _times(world, "reconnect")


@pytest.mark.parametrize("moment", ["probe", "raise"])
def test_who_is_dead_is_repaired_although_the_hook_dies_as_it_notes_that(
    world: World, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class DiedError(BaseException):
        """Stands for the end of the process."""

    def die(*_: Any) -> None:
        raise DiedError

    world.gateway.gone.add("loja")
    _suspect(world)
    place = {"probe": "recorder.note_end", "raise": "repository.raise_intents"}[moment]
    world.run(30)
    with monkeypatch.context() as patch:
        patch.setattr(f"reconnect_hook.{place}", die)
        with pytest.raises(DiedError):
            world.run(60)
        assert _ends(world) == {}, "no death is known that is not wanted"
    world.restart()
    world.run(200)
    assert [ended.reason for ended in world.ended()] == ["probe_failed"]


def test_a_repair_counts_for_probes_while_it_lasts_and_for_a_time(world: World) -> None:
    book = world.hook.probing.book
    world.put("loja", Status.DISCONNECTED)
    world.alert()
    world.run(5)
    assert book.repaired(1) == {"loja"}
    world.put("loja")
    world.run(60, until=lambda: bool(world.ended()))
    world.skip(100)
    assert (book.repaired(99), book.repaired(102)) == (set(), {"loja"})


def test_who_was_heard_is_not_asked_and_may_take_part_in_echoes_again(world: World) -> None:
    book = world.hook.probing.book
    _suspect(world)
    loja = Channel("loja", Status.CONNECTED)
    book.end("loja", ProbeKind.ECHO, ProbeOutcome.UNDECIDED, [loja])
    assert book.suspended() == {"loja"}
    world.message()
    world.run(10)
    assert (book.suspended(), world.gateway.calls) == (set(), [])


def test_whoever_takes_up_what_a_person_has_asked_knows_it_again(
    make: Callable[..., World],
) -> None:
    world = make(hooks=2)
    _suspect(world)
    world.run(5)

    def hang(*_: str) -> None:
        world.gateway.on_call = lambda *_: None
        world.clock.wait(threading.Event(), 1000)

    world.gateway.on_call = hang
    world.message("loja")
    assert world.hook.actions.probe_now("loja")
    world.run(5)
    assert len(_times(world)) == 2
    row = world.row()
    assert row is not None
    assert row.phase is Phase.PROBING
    world.hooks[0].die()
    world.hooks[0] = world.hooks[1]
    world.run(20)
    assert len(_times(world)) == 3
    assert not _is_open(world)


def test_nobody_is_asked_while_the_gateway_or_the_log_is_down(
    make: Callable[..., World],
) -> None:
    world = make(_BY_ECHO)
    world.gateway.list_error = GatewayErrorKind.HTML
    _suspect(world)
    world.run(100)
    assert _is_open(world)
    world.gateway.list_error = None
    world.messages.is_down = True
    world.run(300)
    assert _is_open(world)
    assert world.gateway.calls == []
    row = world.row()
    assert row is not None
    assert row.deadline is not None, "it waits for a minute at a time, in no thread"
    assert len(world.hook.workers.probes) == 0
    world.messages.is_down = False
    world.run(130)
    assert _ends(world) == {"loja": "passed"}


def test_after_an_outage_echoes_go_one_after_the_other(make: Callable[..., World]) -> None:
    world = make(_BY_ECHO)
    for name in _NAMES:
        _suspect(world, name)
    world.run(600)
    assert _ends(world) == dict.fromkeys(_NAMES, "passed")
    times = [at for name, _, at in world.gateway.calls if name == "send_text"]
    assert len(times) == len(_NAMES)
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(times))


def test_those_who_wait_for_their_echo_are_spread_out(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever they are multiplied by, up to four who wait: no two waits are alike.
    chance = SimpleNamespace(random=itertools.cycle([0.1, 0.5, 0.9]).__next__)
    monkeypatch.setattr("reconnect_hook.recorder._chance", chance)
    world = make(_BY_ECHO)
    for name in _NAMES:
        _suspect(world, name)
    world.run(5)
    rows = [row for name in _NAMES if (row := world.row(name)) is not None and row.is_open]
    waits = sorted(row.deadline for row in rows if row.deadline is not None)
    assert len(waits) == len(_NAMES) - 1
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(waits))
    with world.hook.database.read() as connection:
        assert len(connection.scalars(sa.select(echoes.c.id)).all()) == 1


class TestARepairAndAQuestion:
    def test_a_finding_is_dropped_when_an_alert_wants_a_repair_meanwhile(
        self, make: Callable[..., World]
    ) -> None:
        world = make(_BY_ECHO)
        world.gateway.gone.add("loja")
        world.gateway.heals = False
        _suspect(world)
        world.run(20)
        row = world.row()
        assert row is not None
        assert row.phase is Phase.PROBING
        assert world.alert("loja", RepairCause.SILENT) == "accepted"
        world.run(5)
        assert len(_times(world, "reconnect")) == 1
        world.run(55)
        assert _ends(world) == {}, "the echo from before the repair was lost by now"
        world.run(200)
        assert [ended.reason for ended in world.ended()] == ["silent"]
        assert "after getQr too" in world.ended()[0].detail, "by the proof of the repair"

    def test_a_proof_that_decides_nothing_shows_no_recovery(
        self, make: Callable[..., World]
    ) -> None:
        world = make(_BY_ECHO)
        world.gateway.deaf.update(_NAMES)
        world.gateway.heals = False
        world.alert("loja", RepairCause.SILENT)
        world.run(400)
        assert _ends(world) == {"loja": "undecided"}
        assert world.outcomes() == ["requested"]

    def test_a_finding_is_dropped_when_the_alert_has_not_been_looked_after_yet(
        self, make: Callable[..., World]
    ) -> None:
        world = make(replace(_BY_ECHO, list_takes=30.0))
        world.gateway.deaf.add("loja")
        _suspect(world)
        world.run(88)
        assert world.alert() == "accepted"
        world.run(15)
        assert len(world.hook.workers.probes) == 0, "it has ended"
        assert (_ends(world), world.lines()) == ({}, [])
        row = world.row()
        assert row is not None
        assert (row.intent, row.cause) == (Intent.REPAIR, "disconnected")

    def test_a_late_answer_is_not_that_of_the_next_probe(self, world: World) -> None:
        world.gateway.on_call = lambda _call, _name: Turn.present().pause(30)
        _suspect(world)
        world.run(5)
        world.gateway.on_call, world.gateway.heals = lambda _call, _name: None, False
        world.gateway.gone.add("loja")
        world.alert("loja", RepairCause.SILENT)
        world.run(20, until=lambda: len(_times(world)) == 2)
        world.gateway.gone.clear()
        world.run(20)
        world.gateway.gone.add("loja")
        world.run(200)
        assert _ends(world) == {"loja": "failed"}
        assert "two queries failed" in world.ended()[0].detail

    def test_a_probe_that_was_cancelled_sends_nothing(self, make: Callable[..., World]) -> None:
        world = make(replace(_BY_ECHO, can_query=True))
        world.gateway.on_call = lambda _call, _name: Turn.present().pause(30)
        _suspect(world)
        world.run(5)
        world.gateway.on_call = lambda _call, name: world.put(name)
        world.put("loja", Status.DISCONNECTED)
        world.alert()
        world.run(60)
        assert world.outcomes() == ["reconnected"]
        assert {call for call, *_ in world.gateway.calls} == {"query", "reconnect"}

    def test_the_end_cancels_all_probes_though_one_ends_meanwhile(self, world: World) -> None:
        probes = world.hook.workers.probes

        class Ending(threading.Event):
            def set(self) -> None:
                probes.pop("obra", None)
                super().set()

        probes |= {"loja": Ending(), "obra": threading.Event()}
        world.hook.reconciler.stop()
        assert probes["loja"].is_set()

    def test_another_who_is_proved_dead_is_repaired_too(self, make: Callable[..., World]) -> None:
        world = make(_BY_ECHO)
        world.gateway.gone.add("casa")
        for name in ("obra", "nova"):
            world.messages.came[name] = world.clock.time() - 3000
        world.messages.came["casa"] = world.clock.time() - 700
        _suspect(world)
        world.run(400)
        assert _ends(world)["loja"] == "other_failed"
        (ended,) = world.ended("casa")
        assert ended.reason == "echo_lost"
        row = world.row("casa")
        assert row is not None
        assert row.asked_by is AskedBy.PROBE
        assert world.ended("loja") == []


class TestDelivery:
    @pytest.fixture
    def world(self, make: Callable[..., World]) -> World:
        made = make(replace(_BY_QUERY, compares=True, probe=replace(_PROBE, kind=_DELIVERY)))
        made.gateway.posts_to = WebhookConfig(
            (
                "https://crm.example.com/hooks/secret",
                # No origin of these is told.
                *("https://[::1", "https:///hooks", "https://\ud800.example.com"),
                f"https://{100 * 'x'}.example.com",
            )
        )
        return made

    def test_a_broken_delivery_is_told_to_people_and_reconnects_nothing(self, world: World) -> None:
        _receives(world, "LOST", ago=300)
        _suspect(world)
        world.run(30)

        assert _ends(world) == {"loja": "delivery_broken"}
        labels = {"gateway": GATEWAY, "channel": "loja", "kind": "delivery"}
        assert world.value("whatsapp_channel_probe_success", **labels) == 0
        line = world.lines()[-1]
        assert "probe=delivery outcome=delivery_broken" in line
        assert "not arrived; the session's webhook posts to https://crm.example.com:" in line
        for _ in range(3):
            world.alert("loja", RepairCause.SILENT)
            world.run(100)
            world.skip(800)
        assert _times(world, "reconnect") == []
        assert world.ended() == []

        # A person may reconnect it all the same, and so may its next drop.
        world.hook.actions.reconnect("loja")
        world.run(100)
        assert len(_times(world, "reconnect")) == 1

    def test_a_clock_that_was_put_back_ends_what_is_known_of_a_delivery(self, world: World) -> None:
        world.clock.jumped = 1e6
        _receives(world, "LOST", ago=300)
        _suspect(world)
        world.run(30)
        world.clock.jumped = 0
        for _ in range(2):
            world.alert("loja", RepairCause.SILENT)
            world.run(100)
            world.skip(3600)
        assert len(_times(world, "reconnect")) == 1

    def test_what_its_webhook_lacks_is_a_metric_while_it_lasts(self, world: World) -> None:
        world.gateway.posts_to = WebhookConfig()
        _receives(world, "LOST", ago=300)
        labels = {"gateway": GATEWAY, "channel": "loja", "fault": "missing"}
        _suspect(world)
        world.run(30)
        assert world.value("whatsapp_channel_webhook_fault", **labels) == 1
        assert "the session has no webhook of its own" in world.lines()[-1]

        world.messages.ids["loja"] = {"LOST"}
        _suspect(world)
        world.skip(900)
        world.run(50)

        assert _ends(world) == {"loja": "passed"}
        assert world.value("whatsapp_channel_webhook_fault", **labels) is None

    def test_a_quiet_channel_is_reconnected_once_for_each_silence(self, world: World) -> None:
        _receives(world, "A", ago=14_401)
        world.messages.ids["loja"] = {"A"}
        for times in (1, 2):
            for _ in range(16):
                world.alert("loja", RepairCause.SILENT)
                world.run(100)
                world.skip(800)
            assert len(_times(world, "reconnect")) == times
        assert set(world.outcomes()) == {"requested"}

    def test_a_message_that_arrives_lets_silence_be_repaired_again(self, world: World) -> None:
        _receives(world, "LOST", ago=300)
        _suspect(world)
        world.run(30)
        world.message()
        world.skip(14_401)
        world.alert("loja", RepairCause.SILENT)
        world.run(100)

        assert _times(world, "reconnect")

    @pytest.mark.parametrize(
        ("ago", "arrived", "heard", "outcome"),
        [
            pytest.param(300, True, False, "passed", id="the newest has arrived"),
            pytest.param(300, False, True, "passed", id="a later one has"),
            pytest.param(30, False, False, "passed", id="too young to be late: by query"),
            pytest.param(90_000, False, False, "passed", id="too old to be known: by query"),
            pytest.param(301, False, False, "passed", id="in a gap: by query"),
        ],
    )
    def test_what_arrives_or_cannot_be_known_is_not_broken(
        self, world: World, ago: float, arrived: bool, heard: bool, outcome: str
    ) -> None:
        _receives(world, "A", ago=ago)
        world.messages.gaps = [(0.0, world.clock.time() - 300.5)]
        if arrived:
            world.messages.ids["loja"] = {"A"}
        if heard:
            world.message()
            world.skip(61)
        _suspect(world)
        world.run(30)

        assert _ends(world) == {"loja": outcome}
        assert _times(world, "reconnect") == []

    def test_what_is_known_to_be_broken_stays_so_where_it_cannot_be_known(
        self, world: World
    ) -> None:
        _receives(world, "LOST", ago=300)
        _suspect(world)
        world.run(30)
        world.skip(90_000)
        _suspect(world)
        world.run(30)

        assert _ends(world) == {"loja": "delivery_broken"}

    def test_a_webhook_that_is_well_is_read_once_an_hour(self, world: World) -> None:
        for number in range(6):
            _receives(world, f"ID{number}", ago=90)
            world.messages.ids["loja"] = {f"ID{number}"}
            _suspect(world)
            world.run(31)
            world.skip(870)
        assert len(_times(world)) >= 5
        assert len(_times(world, "webhook")) == 2

    def test_an_echo_is_sent_once_nothing_came_between_two_probes(
        self, make: Callable[..., World]
    ) -> None:
        echo = replace(_PROBE, kind=ProbeKind.ECHO, echoes_per_day=100)
        world = make(replace(_BY_QUERY, compares=True, probe=echo))
        _receives(world, "A", ago=300)
        world.messages.ids["loja"] = {"A"}
        _suspect(world)
        world.run(30)
        assert _sent(world) == 0
        _suspect(world)
        world.skip(900)
        world.run(50)
        assert _sent(world) == 1
        assert _ends(world) == {"loja": "passed"}

        # One that is broken sends none, nor does one that has heard something meanwhile.
        _receives(world, "LOST", ago=0)
        world.skip(900)
        _suspect(world)
        world.run(30)
        assert _ends(world) == {"loja": "delivery_broken"}
        assert _sent(world) == 1


def _receives(world: World, id_: str, *, ago: float) -> None:
    message = ReceivedMessage(id_, world.clock.time() - ago, "chat", "0001")
    world.gateway.has.setdefault("loja", []).append(message)


def _sent(world: World) -> int:
    return sum(call == "send_text" for call, _, _ in world.gateway.calls)
