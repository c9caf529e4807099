"""When messages are compared and delivered again: hooks, state and gateway in a world."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from reconnect_hook import message_replay
from reconnect_hook.event_log import EventLog
from reconnect_hook.message_audit import (
    Audit,
    AuditRepository,
    AuditResult,
    DueAudit,
    MessageAuditor,
    Missed,
    Replay,
    wish_after,
)
from reconnect_hook.message_replay import DIED, OLDEST_SECONDS, ReplayRepository
from reconnect_hook.models import RepairCause
from reconnect_hook.repository import prune_audits, prune_records
from tests.support.raw_server import Conversation, RawServer, reset
from tests.support.world import GATEWAY, Options, World
from zapwatch.channels import Channel, Status
from zapwatch.config.readers import AuditMode, ReplayMode
from zapwatch.gateways.base import Gateway, GatewayError, GatewayErrorKind, Operation
from zapwatch.messages.message import Received, ReceivedMessage, Wanted


class _Audited(World):
    def receive(self, id_: str, *, channel: str = "loja", arrives: bool = True) -> None:
        """Let a message come to the gateway, and to the consumer if it ``arrives``."""
        message = ReceivedMessage(id_, self.clock.time(), "text", "0001")
        self.gateway.has.setdefault(channel, []).append(message)
        if arrives:
            self.arrive(id_, channel=channel)

    def arrive(self, id_: str, *, channel: str = "loja") -> None:
        self.messages.ids.setdefault(channel, set()).add(id_)

    def lose(self, *ids: str) -> None:
        """Let messages come to the gateway and not to the consumer, and be found missing."""
        for one in ids:
            self.receive(one, arrives=False)
            self.skip(1)
        self.skip(60)
        self.audit()

    def audit(self) -> None:
        self.hook.auditor.repository.want_now("loja")
        self.run(5)

    def deliver(self) -> list[str]:
        """Let a person ask for what was missed, and return what the webhook has got."""
        self.hook.replayer.want("loja", "192.0.2.1")
        self.run(5)
        return self.consumer.got

    def missed(self) -> dict[str, Missed]:
        return {one.id: one for one in self.hook.auditor.repository.missed("loja")}

    def why(self) -> str:
        return self.hook.auditor.repository.last("loja")["loja"].replay_why

    def replayed(self, result: Replay) -> float:
        name = "whatsapp_messages_replayed_total"
        return self.value(name, gateway=GATEWAY, channel="loja", result=result) or 0.0

    def audits(self) -> int:
        """Return how often the gateway was asked for messages."""
        return len([one for one in self.gateway.calls if one[0] == "received"])

    def missing(self, channel: str = "loja") -> float | None:
        name = "whatsapp_channel_messages_missed"
        return self.value(name, gateway=GATEWAY, channel=channel)

    def count(self, result: AuditResult, channel: str = "loja") -> float:
        """Return how many audits ended so, at all hooks together."""
        name = "whatsapp_message_audits_total"
        labels = {"gateway": GATEWAY, "channel": channel, "result": result}
        registries = [hook.metrics.registry for hook in self.hooks]
        return sum(one.get_sample_value(name, labels) or 0.0 for one in registries)

    def dropped_and_repaired(self) -> None:
        """Let the channel drop, lose a message meanwhile, and be repaired."""
        self.put(status=Status.DISCONNECTED)
        self.run(60)
        self.receive("LOST", arrives=False)
        self.gateway.on_call = lambda *_: self.put()
        assert self.repair().outcome == "reconnected"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_replay, "PAUSE_SECONDS", 0.0)


_INCIDENTS = Options(audit=AuditMode.INCIDENTS)
_AUTO = replace(_INCIDENTS, replay=ReplayMode.AUTO)
_daily = pytest.mark.parametrize("world", [Options(audit=AuditMode.DAILY)], indirect=True)


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[_Audited]:
    """Make a world of two hooks, with other options where a test has them."""
    made = _Audited(tmp_path, getattr(request, "param", _INCIDENTS), hooks=2)
    made.put()
    yield made
    made.close()


def test_after_a_repair_what_was_lost_is_found_and_told(world: _Audited) -> None:
    world.receive("BEFORE")
    world.dropped_and_repaired()
    world.receive("AFTER")

    world.run(110)
    assert world.audits() == 0
    world.run(20)

    assert world.audits() == 1
    assert world.missing() == 1
    [missed] = world.missed().values()
    assert (missed.id, missed.chat, missed.arrived_at) == ("LOST", "0001", None)
    assert "audit=missed received=3 missed=1" in world.lines()[-1]

    # Half an hour later it is looked for once more.
    world.arrive("LOST")
    world.skip(1600)
    world.run(100)
    assert (world.audits(), world.missing()) == (2, 0)
    assert world.missed()["LOST"].arrived_at is not None
    world.skip(7200)
    world.run(10)
    assert world.audits() == 2


def test_what_is_missing_is_told_for_a_day_whatever_later_audits_look_at(world: _Audited) -> None:
    world.dropped_and_repaired()
    for seconds in (130, 1700):
        world.skip(seconds - 20)
        world.run(20)
        assert world.missing() == 1

    for number in (1, 2):
        world.skip(3 * 3600)
        world.hook.auditor.repository.want([wish_after("loja", world.clock.time())], (0.0, 0.0))
        world.run(5)
        assert (world.missing(), world.count(AuditResult.COMPLETE)) == (1, number)

    world.skip(20 * 3600)
    world.hook.auditor.repository.want([wish_after("loja", world.clock.time())], (0.0, 0.0))
    world.run(5)
    assert world.missing() == 0


def test_of_an_hour_without_a_session_exactly_what_the_phone_kept_is_missed(
    world: _Audited,
) -> None:
    """Of its messages, the phone delivers every second one after the repair, with its own time."""
    world.receive("BEFORE")
    world.put(status=Status.DISCONNECTED)
    began = world.clock.time()
    came = []
    for number in range(6):
        world.alert()
        world.run(70)
        world.skip(530)
        message = ReceivedMessage(f"ID{number}", world.clock.time() - 300, "text", "0001")
        came.append(message)
    world.gateway.on_call = lambda *_: world.put()
    world.alert()
    world.skip(3600)
    world.run(10)
    assert world.outcomes()[-1] == "reconnected"
    # Its alert ends.
    world.hook.auditor.repository.want([wish_after("loja", began)])
    world.gateway.has["loja"] += came
    for message in came[::2]:
        world.arrive(message.id)

    world.run(150)

    assert world.missing() == 3
    assert sorted(world.missed()) == ["ID1", "ID3", "ID5"]


def test_a_silent_channel_that_no_repair_brings_back_is_audited_too(world: _Audited) -> None:
    world.receive("LOST", arrives=False)
    world.skip(4 * 3600)
    assert world.repair(cause=RepairCause.SILENT).outcome == "requested"
    world.run(130)
    assert world.missing() == 1


def test_a_log_that_cannot_be_read_is_no_log_without_messages(world: _Audited) -> None:
    world.dropped_and_repaired()
    world.messages.is_down = True
    world.run(130)

    assert world.missing() is None
    assert world.count(AuditResult.UNKNOWN) == 1
    world.messages.is_down = False
    world.skip(1600)
    world.run(100)
    assert world.missing() == 1


def test_an_audit_takes_no_list_from_the_repairs_request_budget(
    world: _Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.dropped_and_repaired()
    lists = world.gateway.lists
    with monkeypatch.context() as patch:
        patch.setattr(world.gateway, "can_spare_list", lambda: False)
        world.run(200)
        assert (world.gateway.lists, world.missing()) == (lists, None)
    world.skip(900)
    world.run(5)
    assert world.missing() == 1


def test_an_audit_whose_hook_died_is_made_by_another(world: _Audited) -> None:
    world.dropped_and_repaired()
    world.skip(125)
    [due] = world.hooks[1].auditor.repository.claim()
    assert due.key == "loja"

    world.skip(800)
    world.run(10)
    assert world.audits() == 0
    world.run(100)

    assert world.audits() == 1
    assert world.missing() == 1


@pytest.mark.parametrize("hours", [4, 240])
def test_a_silence_that_ended_is_audited_from_before_it_began_but_for_a_week_at_most(
    world: _Audited, hours: int
) -> None:
    world.receive("OLD", arrives=False)
    world.skip(8 * 86_400)
    world.receive("LOST", arrives=False)
    world.skip(4 * 3600)
    noticed_at = world.clock.time()
    wish = wish_after("loja", noticed_at, lambda _: hours * 3600)

    world.hook.auditor.repository.want([wish])
    world.run(130)

    assert world.missing() == 1


def test_a_gateway_that_was_down_has_each_of_its_channels_audited_twice(world: _Audited) -> None:
    world.put("obra")
    world.receive("LOST", channel="obra", arrives=False)

    world.hook.auditor.repository.want([wish_after("", world.clock.time())])
    world.run(150)
    assert (world.missing(), world.missing("obra")) == (0, 1)
    assert world.audits() == 2
    world.skip(1700)
    world.run(100)

    assert world.audits() == 4


def test_each_outage_has_an_audit_half_an_hour_after_it(world: _Audited) -> None:
    repository = world.hook.auditor.repository
    repository.want([wish_after("loja", world.clock.time())])
    world.run(130)
    world.skip(900)
    for lost in ("DURING THE FIRST", "AFTER IT"):
        repository.want([wish_after("loja", world.clock.time())])
        world.run(130)
        world.skip(700)
        world.run(100)
        world.receive(lost, arrives=False)
        world.skip(800)
        world.run(100)
        assert lost in world.missed()


def test_an_audit_is_running_from_when_it_is_due_until_it_has_ended(world: _Audited) -> None:
    repository = world.hook.auditor.repository
    running: list[bool] = []

    def note() -> None:
        running.append(repository.last("loja")["loja"].running)

    repository.want([wish_after("loja", world.clock.time())])
    note()
    for seconds in (130, 1700):
        world.skip(seconds)
        note()
        [claimed] = repository.claim()
        note()
        repository.finish(claimed)
        note()
    assert running == [False, True, True, False, True, True, False]


@pytest.mark.parametrize("about", ["loja", ""])
def test_a_channel_that_is_listed_late_has_the_last_audit(world: _Audited, about: str) -> None:
    world.receive("LOST", arrives=False)
    world.hook.auditor.repository.want([wish_after(about, world.clock.time())])
    del world.gateway.statuses["loja"]
    world.put("obra")
    world.run(130)
    world.put()
    world.skip(1650)
    world.run(50)

    assert "LOST" in world.missed()


def test_audits_end_with_their_gateway_and_are_made_when_it_is_back(world: _Audited) -> None:
    world.hooks[1].die()
    for name in ("loja", "obra"):
        world.put(name)
        world.hook.auditor.repository.want_now(name)
    world.gateway.on_call = lambda _call, _name: world.hook.reconciler.stop()
    world.run(10)
    assert world.audits() == 1
    world.gateway.on_call = lambda _call, _name: None
    world.restart()
    world.skip(900)
    world.run(10)
    results = [one.result for one in world.hook.auditor.repository.last().values()]
    assert results == [AuditResult.COMPLETE] * 2


def test_the_audit_of_a_channel_is_told_before_the_next_one_begins(world: _Audited) -> None:
    repository = world.hook.auditor.repository
    told: list[set[str]] = []
    for name in ("loja", "obra"):
        world.put(name)
        repository.want_now(name)
    world.gateway.on_call = lambda _call, _name: told.append(
        {key for key, one in repository.last().items() if one.result}
    )
    world.run(5)
    assert told == [set(), {"loja"}]


def test_flapping_does_not_put_an_audit_off_and_looks_as_far_back(world: _Audited) -> None:
    began = world.clock.time()
    world.receive("LOST", arrives=False)
    repository = world.hook.auditor.repository
    for _ in range(5):
        repository.want([wish_after("loja", world.clock.time())])
        world.run(50)

    assert world.missing() == 1
    assert world.clock.time() - began < 300


@pytest.mark.parametrize(("gateway", "kept"), [(GATEWAY, set()), ("another", {"loja"})])
def test_records_of_what_has_left_go_after_30_days(
    world: _Audited, gateway: str, kept: set[str]
) -> None:
    """Of a channel, which has no metric any more, and of a gateway that was removed."""
    world.dropped_and_repaired()
    world.run(130)
    world.skip(29 * 86_400)
    prune_audits(world.hook.database, gateway, [])
    prune_records(world.hook.database)
    assert world.missed().keys() == {"LOST"}
    assert world.hook.auditor.repository.last().keys() == kept
    assert (world.missing() is None) is not bool(kept)
    world.skip(2 * 86_400)
    prune_audits(world.hook.database, gateway, [])
    prune_records(world.hook.database)
    assert world.missed() == {}
    assert world.hook.auditor.repository.last() == {}


def test_many_audits_are_deleted_and_many_messages_arrive_by_few_statements(
    world: _Audited,
) -> None:
    repository, loja = world.hook.auditor.repository, Channel("loja", Status.CONNECTED)
    names = [f"name{number}" for number in range(1200)]
    missed = tuple(ReceivedMessage(one, world.clock.time(), "text", "0001") for one in names)
    repository.want([wish_after(one, world.clock.time()) for one in names])
    repository.record(loja, Audit(AuditResult.MISSED, missed=missed))
    world.skip(200)
    statements: list[str] = []
    engine = world.hook.database._engine
    sa.event.listen(engine, "before_cursor_execute", lambda *event: statements.append(event[2]))
    repository.record(loja, Audit(AuditResult.COMPLETE, arrived=frozenset(names)))
    prune_audits(world.hook.database, GATEWAY, ["loja"])
    assert len(statements) < 40
    assert repository.last().keys() == {"loja"}
    assert all(one.arrived_at for one in world.missed().values())


@pytest.mark.parametrize(("count", "seconds", "read"), [(50, 60, 0), (120, 0, 0), (1, 30, 5000)])
def test_audits_of_many_channels_stay_claimed_and_share_a_list(
    world: _Audited, monkeypatch: pytest.MonkeyPatch, count: int, seconds: int, read: int
) -> None:
    world.messages.takes = read
    names = [f"channel{number:03d}" for number in range(count)]
    for name in names:
        world.put(name)
    repository, other = (hook.auditor.repository for hook in world.hooks)
    taken: list[DueAudit] = []
    answer = world.gateway.received

    def slowly(channel: Channel, wanted: Wanted) -> Received:
        world.clock.seconds += seconds
        taken.extend(other.claim() if seconds else [])
        return answer(channel, wanted)

    monkeypatch.setattr(world.gateway, "received", slowly)
    repository.want([wish_after(name, world.clock.time()) for name in names], (0.0, 0.0))
    auditor = MessageAuditor(
        repository,
        world.gateway,
        world.messages,  # type: ignore[arg-type]
        world.events,
        lambda *_: None,
        AuditMode.INCIDENTS,
        clock=world.clock,
        start=lambda work: work(),
    )
    auditor.begin()

    assert world.audits() == count
    assert taken == []
    assert world.gateway.lists == 1
    assert all(one.due_at is None for one in repository.last().values())
    world.put("new")
    repository.want_now("new")
    auditor.begin()
    assert repository.last("new")["new"].result is AuditResult.COMPLETE


def test_a_channel_that_one_list_lacks_keeps_its_audits_and_loses_them_within_an_hour(
    world: _Audited,
) -> None:
    world.dropped_and_repaired()
    world.run(130)
    world.gateway.on_call = lambda *_: None
    # A gateway that starts again lists its sessions one after the other.
    del world.gateway.statuses["loja"]
    world.put("obra", Status.DISCONNECTED)
    world.repair("obra")
    assert world.missing() == 1
    world.put()
    world.skip(1740)
    world.run(60)
    assert (world.missing(), world.audits()) == (1, 2)

    del world.gateway.statuses["loja"]
    world.repair("obra")
    world.skip(3600)
    world.run(5)
    assert world.missing() is None


@_daily
def test_daily_audits_come_once_a_day_and_after_outages(world: _Audited) -> None:
    world.receive("LOST", arrives=False)

    for seconds in (280, 1800):
        world.skip(seconds)
        world.run(20)
        assert world.audits() == 1
        assert world.missing() == 1
    world.skip(86_480 - 1820)
    world.run(20)
    assert world.audits() == 2
    world.restart()
    world.skip(280)
    world.run(20)
    assert world.audits() == 2


@_daily
def test_a_clock_that_was_put_back_stops_no_audit_and_no_delivery(world: _Audited) -> None:
    world.clock.jumped = 1e6
    world.run(300)
    world.lose("A")
    world.hook.auditor.repository.want([wish_after("loja", world.clock.time())])
    world.hook.replayer.want("loja", None)
    world.clock.jumped = 0
    world.run(10)
    assert world.consumer.got == ["A"]

    audits = world.audits()
    world.receive("LATER", arrives=False)
    world.run(100)
    assert world.audits() == audits, "none is repeated"
    world.skip(86_400)
    world.run(10)
    assert "LATER" in world.missed()


@pytest.mark.parametrize("world", [Options()], indirect=True)
def test_where_audits_are_off_nothing_is_asked(world: _Audited) -> None:
    world.dropped_and_repaired()
    world.skip(1900)
    world.run(10)

    assert world.audits() == 0


def test_the_state_on_mariadb_keeps_audits_too(tmp_path: Path, database: sa.URL) -> None:
    world = _Audited(tmp_path, Options(audit=AuditMode.INCIDENTS), url=database)
    world.put()
    world.receive("LOST", arrives=False)
    repository = world.hook.auditor.repository
    for _ in range(2):
        repository.want([wish_after("loja", world.clock.time())])
        world.run(65)

    assert world.missing() == 1
    assert world.deliver() == ["LOST"]
    assert world.missing() == 0
    assert [one.replay for one in repository.missed("loja")] == [Replay.DELIVERED]
    prune_audits(world.hook.database, GATEWAY, [])
    assert repository.last() == {}
    world.close()


def test_two_hooks_at_once_make_one_audit(world: _Audited) -> None:
    world.hook.auditor.repository.want_now("loja")

    claimed = [hook.auditor.repository.claim() for hook in world.hooks]

    assert [len(one) for one in claimed] == [1, 0]


def test_a_message_is_begun_once_and_not_where_it_has_arrived(world: _Audited) -> None:
    world.lose("A", "B")
    repository = ReplayRepository(world.hook.database, GATEWAY)
    repository.want("loja")
    claim = repository.claim()
    assert claim is not None
    arrived = Audit(AuditResult.COMPLETE, arrived=frozenset("B"))
    world.hook.auditor.repository.record(Channel("loja", Status.CONNECTED), arrived)
    for id_, may_be_sent in (("A", True), ("A", False), ("B", False)):
        claim, is_noted = repository.begin(claim, id_)
        assert is_noted is may_be_sent


def test_what_was_missed_is_delivered_once_the_oldest_first(world: _Audited) -> None:
    world.lose("B", "A", "C")
    assert world.missing() == 3

    assert world.deliver() == ["B", "A", "C"]
    assert world.missing() == 0
    assert world.replayed(Replay.DELIVERED) == 3
    assert [one.replay for one in world.missed().values()] == [Replay.DELIVERED] * 3
    assert any("action=replay outcome=asked address=192.0.2.1" in line for line in world.lines())
    assert any("action=replay outcome=ended delivered=3" in line for line in world.lines())
    world.audit()
    assert len(world.deliver()) == 3
    assert world.missing() == 0


@pytest.mark.parametrize(
    ("world", "got"), [(_AUTO, ["A"]), (_INCIDENTS, [])], indirect=["world"], ids=["auto", "manual"]
)
def test_only_auto_delivers_what_nobody_has_asked_for(world: _Audited, got: list[str]) -> None:
    world.lose("A")
    world.run(5)
    assert world.consumer.got == got


_YES = (Replay.DELIVERED, "")
_NO = (Replay.REFUSED, "HTTP 503")
_PERHAPS = (Replay.UNKNOWN, "no answer within 10 s")


@pytest.mark.parametrize(
    ("answers", "got", "later"),
    [
        ([_NO], ["A", "B", "C", "D", "E"], ["A"]),
        ([_NO, _NO], ["A", "B", "C", "D", "E"], ["A", "B"]),
        ([_NO, _NO, _NO], ["A", "B", "C"], ["A", "B", "C", "D", "E"]),
        ([_NO, _NO, _YES, _NO], ["A", "B", "C", "D", "E"], ["A", "B", "D"]),
        ([_PERHAPS], ["A"], ["B", "C", "D", "E"]),
    ],
)
def test_what_the_webhook_does_not_take_stays_missed_and_says_why(
    world: _Audited,
    answers: list[tuple[Replay, str]],
    got: list[str],
    later: list[str],
) -> None:
    world.lose("A", "B", "C", "D", "E")
    world.consumer.answers = list(answers)

    assert world.deliver() == got
    for id_, (result, why) in zip("ABCD", answers, strict=False):
        assert (world.missed()[id_].replay, world.missed()[id_].replay_detail) == (result, why)
    assert world.missing() == 5 - len(got) + len(answers) - answers.count(_YES)
    found = Audit(AuditResult.MISSED, missed=(world.gateway.has["loja"][0],))
    automatic = AuditRepository(world.hook.database, GATEWAY, replays=True)
    automatic.record(Channel("loja", Status.CONNECTED), found)
    world.consumer.got = []
    world.run(5)
    untried = sorted(set("ABCDE") - set(got))
    assert world.consumer.got == untried, "nobody has asked for those that were refused"
    world.consumer.got = []
    assert world.deliver() == [one for one in later if one not in untried]
    assert world.missing() == sum(result is Replay.UNKNOWN for result, _ in answers)


@pytest.mark.parametrize("world", [_AUTO], indirect=True)
@pytest.mark.parametrize(("answer", "tried"), [(_NO, 3), (_PERHAPS, 1)])
def test_auto_gives_a_webhook_that_is_down_half_an_hour(
    world: _Audited, answer: tuple[Replay, str], tried: int
) -> None:
    world.consumer.answers = [answer] * 10
    world.lose("A", "B", "C", "D", "E", "F", "G", "H")

    world.run(300)
    assert len(world.consumer.got) == tried
    world.consumer.answers = []
    world.skip(1770)
    world.run(30)

    assert len(world.consumer.got) == 8
    assert world.missing() == tried


def _refuse(operation: Operation) -> None:
    raise GatewayError(operation, GatewayErrorKind.TIMEOUT, "made up")


@pytest.mark.parametrize("world", [_AUTO], indirect=True)
@pytest.mark.parametrize("where", ["received", "delivered"])
def test_auto_delivers_later_what_it_could_not_read(world: _Audited, where: str) -> None:
    """Three times, of which the second and the third are audits."""
    reads = itertools.count()

    def fail(*_: object) -> None:
        number = next(reads)
        if where == "delivered":
            world.messages.is_down = number == 0 or world.messages.is_down
        elif 0 < number < 4:
            _refuse(Operation.MESSAGES)

    world.gateway.on_call = fail
    world.lose("A")
    world.run(5)
    assert (world.consumer.got, bool(world.why())) == ([], True)
    for _ in range(2):
        world.skip(1800)
        world.run(10)
    assert (world.consumer.got, world.count(AuditResult.UNKNOWN)) == ([], 2)
    world.messages.is_down = False
    world.skip(1800)
    world.run(10)
    assert world.consumer.got == ["A"]


@pytest.mark.parametrize("world", [_AUTO], indirect=True)
def test_auto_does_not_repeat_what_the_gateway_cannot_list(world: _Audited) -> None:
    world.consumer.answers = [(Replay.REFUSED, "HTTP 400")] * 3
    world.lose("A", "B", "C", "D")
    assert world.consumer.got == ["A", "B", "C"]
    del world.gateway.has["loja"][-1]
    world.gateway.cannot_know = "made up"
    audits = world.audits()
    for _ in range(10):
        world.skip(1800)
        world.run(5)
    assert world.audits() - audits == 2, "an audit, and a delivery that finds nothing"
    assert world.why() == "made up"


@pytest.mark.parametrize("world", [_AUTO], indirect=True)
def test_auto_delivers_although_the_hook_died_when_it_had_audited(
    world: _Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as dying:
        dying.setattr(EventLog, "write", die)
        world.lose("A")
    world.run(5)
    assert world.consumer.got == ["A"]


def test_an_audit_that_cannot_be_made_is_given_up_when_its_outage_began_a_day_ago(
    world: _Audited,
) -> None:
    world.messages.is_down = True
    world.hook.auditor.repository.want([wish_after("loja", world.clock.time())])
    for _ in range(60):
        world.skip(1800)
        world.run(10)
    failed = world.count(AuditResult.UNKNOWN)
    assert 40 < failed < 55
    world.messages.is_down = False
    world.skip(7200)
    world.run(10)
    assert (world.count(AuditResult.UNKNOWN), world.audits()) == (failed, 0)


def test_why_some_were_left_is_told_until_none_is_missing(world: _Audited) -> None:
    world.lose("A")
    world.messages.is_down = True
    assert world.deliver() == []
    world.messages.is_down = False
    for is_told in (True, False):
        world.audit()
        assert bool(world.why()) is is_told
        world.arrive("A")


def test_only_what_still_is_to_be_delivered_is(world: _Audited) -> None:
    world.lose("OLD")
    world.skip(OLDEST_SECONDS - 3600)
    world.lose("ARRIVED", "GONE", "B")
    world.skip(3600)
    world.arrive("ARRIVED")
    world.gateway.has["loja"] = [one for one in world.gateway.has["loja"] if one.id != "GONE"]

    assert world.deliver() == ["B"]
    assert world.missed()["ARRIVED"].arrived_at is not None
    assert world.missed()["GONE"].replay is Replay.GONE


@pytest.mark.parametrize("fault", ["log", "session", "list"])
def test_what_cannot_be_read_delivers_nothing_and_says_why(world: _Audited, fault: str) -> None:
    world.lose("A")
    has = world.gateway.has.pop("loja")
    if fault == "log":
        world.messages.is_down = True
    elif fault == "session":
        world.gateway.cannot_know = "the session is down"
    else:
        world.gateway.statuses.clear()

    assert world.deliver() == []
    assert world.why()
    assert world.missed()["A"].replay is None
    world.gateway.has["loja"], world.gateway.cannot_know = has, ""
    world.messages.is_down = False
    world.put()
    assert world.deliver() == ["A"]
    assert world.why() == ""


def test_what_a_hook_that_died_was_sending_is_unknown_and_not_sent_again(world: _Audited) -> None:
    world.lose("A", "B")
    dying = ReplayRepository(world.hooks[1].database, GATEWAY)
    dying.want("loja")
    claim = dying.claim()
    assert claim is not None
    claim, _ = dying.begin(claim, "A")

    world.run(200)
    assert world.consumer.got == []
    world.run(200)

    assert world.consumer.got == ["B"]
    assert (world.missed()["A"].replay, world.missed()["A"].replay_detail) == (
        Replay.UNKNOWN,
        DIED,
    )
    # It was only late: what it knows counts, and the rest is another hook's.
    with pytest.raises(message_replay.LostClaimError):
        dying.begin(claim, "B")
    dying.end("loja", ["A"], Replay.DELIVERED, "")
    assert world.missed()["A"].replay is Replay.DELIVERED
    assert world.missed()["A"].replay_detail == ""


@pytest.mark.parametrize("result", [None, Replay.DELIVERED])
def test_what_a_hook_sent_before_it_died_is_missing_no_more_when_it_has_arrived(
    world: _Audited, result: Replay | None
) -> None:
    world.lose("A")
    dying = ReplayRepository(world.hooks[1].database, GATEWAY)
    dying.want("loja")
    claim = dying.claim()
    assert claim is not None
    dying.begin(claim, "A")
    if result is not None:
        dying.end("loja", ["A"], result, "")
    world.arrive("A")

    world.skip(300)
    world.run(10)
    world.skip(1800)
    world.run(10)

    assert world.missing() == 0


def test_two_hooks_deliver_one_channel_of_a_gateway_at_a_time(world: _Audited) -> None:
    world.put("obra")
    world.receive("OBRA", channel="obra", arrives=False)
    world.lose("LOJA")
    world.hook.auditor.repository.want_now("obra")
    world.run(5)
    both = [ReplayRepository(hook.database, GATEWAY) for hook in world.hooks]
    for channel in ("loja", "obra"):
        both[0].want(channel)

    claims = [one.claim() for one in both]

    assert [claim is None for claim in claims] == [False, True]


def test_a_delivery_whose_log_is_read_slowly_stays_claimed(world: _Audited) -> None:
    world.lose("A")
    other, taken = ReplayRepository(world.hooks[1].database, GATEWAY), []
    world.hooks[1].die()
    world.messages.takes = 2000
    answer = world.gateway.received

    def received(channel: Channel, wanted: Wanted) -> Received:
        taken.append(other.claim())
        return answer(channel, wanted)

    world.gateway.received = received  # type: ignore[method-assign]
    assert world.deliver() == ["A"]
    assert not any(taken)


def test_a_hook_that_is_told_to_end_leaves_the_rest_to_the_next(world: _Audited) -> None:
    world.lose("A", "B")
    world.consumer.on_post = world.hook.replayer.stop
    world.hooks[1].die()

    assert world.deliver() == ["A"]
    world.consumer.on_post = lambda: None
    world.restart()
    world.run(5)
    assert world.consumer.got == ["A", "B"]
    assert world.missing() == 0


def _answers(status: str) -> Callable[[Conversation], None]:
    def talk(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    return talk


def _hang(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.drip([b"HTTP"] * 100, 0.1)


def _no_tls(conversation: Conversation) -> None:
    conversation.connection.recv(65536)
    conversation.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def _no_handshake(conversation: Conversation) -> None:
    conversation.connection.recv(65536)
    conversation.drip([b""] * 100, 0.1)


@pytest.mark.parametrize(
    ("talk", "result", "words"),
    [
        (_answers("204 No Content"), Replay.DELIVERED, ""),
        (_answers("302 Found"), Replay.REFUSED, "HTTP 302"),
        (_answers("413 Too Large"), Replay.REFUSED, "HTTP 413"),
        (_answers("503 Away"), Replay.REFUSED, "HTTP 503"),
        (_answers("504 Gateway Timeout"), Replay.UNKNOWN, "HTTP 504"),
        (_hang, Replay.UNKNOWN, "no answer within 1 s"),
        (reset, Replay.UNKNOWN, "Connection reset by peer|Remote end closed .*"),
        (None, Replay.REFUSED, "Connection refused"),
        (_no_tls, Replay.REFUSED, ".*record layer failure.*|.*wrong version number.*"),
        (_no_handshake, Replay.REFUSED, "no answer within 1 s"),
    ],
)
def test_what_comes_of_a_post_is_told_without_address_or_token(
    monkeypatch: pytest.MonkeyPatch,
    talk: Callable[[Conversation], None] | None,
    result: Replay,
    words: str,
) -> None:
    if talk in {_hang, _no_handshake}:
        monkeypatch.setattr(message_replay, "ANSWER_SECONDS", 1.0)
    with RawServer(talk or reset) as server:
        url = f"{server.url}/hook/{{session}}?token=a-secret"
        if talk in {_no_tls, _no_handshake}:
            url = url.replace("http:", "https:")
        if talk is None:
            # A port that nobody can have.
            url = url.replace(server.url, "http://127.0.0.1:1")
        consumer = message_replay.Consumer(url, "a-token", Gateway.event_headers)
        came, why = consumer.post("a loja", {"event": "x"})
        assert came is result
        assert re.fullmatch(words, why), why

    if url.startswith(server.url):
        (head,) = server.requests
        assert head.startswith(b"POST /hook/a%20loja?token=a-secret HTTP/1.1\r\n")
        for line in (b"X-Zapwatch-Replay: true", b"Authorization: Bearer a-token"):
            assert line in head
