"""When messages are compared, and what is remembered of it: hooks, state and gateway in a world."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from reconnect_hook.message_audit import AuditResult, prune_audits, wish_after
from tests.support.world import GATEWAY, Options, World
from zapwatch.channels import Status
from zapwatch.config.gateway import AuditMode
from zapwatch.messages.received import ReceivedMessage


class _Audited(World):
    def receive(self, id_: str, *, channel: str = "loja", arrives: bool = True) -> None:
        """Let a message come to the gateway, and to the consumer if it ``arrives``."""
        message = ReceivedMessage(id_, self.clock.time(), "text", "0001")
        self.gateway.has.setdefault(channel, []).append(message)
        if arrives:
            self.arrive(id_, channel=channel)

    def arrive(self, id_: str, *, channel: str = "loja") -> None:
        """Let a message come to the consumer."""
        self.messages.ids.setdefault(channel, set()).add(id_)

    def audits(self) -> int:
        """Return how often the gateway was asked for messages."""
        return len([one for one in self.gateway.calls if one[0] == "received"])

    def missing(self, channel: str = "loja") -> float | None:
        """Return the metric."""
        name = "whatsapp_channel_messages_missed"
        return self.value(name, gateway=GATEWAY, channel=channel)

    def count(self, result: AuditResult, channel: str = "loja") -> float:
        """Return how many audits ended so."""
        name = "whatsapp_message_audits_total"
        return self.value(name, gateway=GATEWAY, channel=channel, result=result) or 0.0

    def dropped_and_repaired(self) -> None:
        """Let the channel drop, lose a message meanwhile, and be repaired."""
        self.put(status=Status.DISCONNECTED)
        self.run(60)
        self.receive("LOST", arrives=False)
        self.gateway.on_call = lambda *_: self.put()
        assert self.repair().outcome == "reconnected"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[_Audited]:
    made = _Audited(tmp_path, Options(audit=AuditMode.INCIDENTS), hooks=2)
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
    [missed] = world.hook.auditor.repository.missed("loja")
    assert (missed.id, missed.chat, missed.arrived_at) == ("LOST", "0001", None)
    assert "audit=missed received=3 missed=1" in world.lines()[-1]


def test_what_arrives_by_the_second_audit_is_missed_no_more(world: _Audited) -> None:
    world.dropped_and_repaired()
    world.run(130)
    assert world.missing() == 1
    world.arrive("LOST")

    world.skip(1600)
    world.run(100)

    assert world.audits() == 2
    assert world.missing() == 0
    [missed] = world.hook.auditor.repository.missed("loja")
    assert missed.arrived_at is not None
    world.skip(7200)
    world.run(10)
    assert world.audits() == 2


def test_a_log_that_cannot_be_read_is_no_log_without_messages(world: _Audited) -> None:
    world.dropped_and_repaired()
    world.messages.is_down = True
    world.run(130)

    assert world.missing() is None
    assert world.count(AuditResult.UNKNOWN) + world_count(world, 1) == 1
    world.messages.is_down = False
    world.skip(1600)
    world.run(100)
    assert world.missing() == 1


def world_count(world: _Audited, hook: int) -> float:
    """Return how many audits a hook could not decide."""
    labels = {"gateway": GATEWAY, "channel": "loja", "result": "unknown"}
    registry = world.hooks[hook].metrics.registry
    return registry.get_sample_value("whatsapp_message_audits_total", labels) or 0.0


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


def test_a_silence_that_ended_is_audited_from_before_it_began(world: _Audited) -> None:
    world.receive("LOST", arrives=False)
    world.skip(4 * 3600)
    noticed_at = world.clock.time()
    wish = wish_after("loja", noticed_at, lambda _: 4 * 3600)

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


def test_flapping_does_not_put_an_audit_off_and_looks_as_far_back(world: _Audited) -> None:
    began = world.clock.time()
    world.receive("LOST", arrives=False)
    repository = world.hook.auditor.repository
    for _ in range(5):
        repository.want([wish_after("loja", world.clock.time())])
        world.run(50)

    assert world.missing() == 1
    assert world.clock.time() - began < 300


def test_records_of_channels_that_have_left_are_forgotten(world: _Audited) -> None:
    world.dropped_and_repaired()
    world.run(130)
    prune_audits(world.hook.database, GATEWAY, ["obra"])

    assert world.missing() is None
    assert len(world.hook.auditor.repository.missed("loja")) == 1
    world.skip(31 * 86_400)
    prune_audits(world.hook.database, GATEWAY, ["obra"])
    assert world.hook.auditor.repository.missed("loja") == []


def test_daily_audits_come_once_a_day_and_after_outages(tmp_path: Path) -> None:
    world = _Audited(tmp_path, Options(audit=AuditMode.DAILY))
    world.put()
    world.receive("LOST", arrives=False)

    world.run(300)
    assert world.audits() == 1
    assert world.missing() == 1
    world.skip(86_000)
    world.run(500)
    assert world.audits() == 2
    world.restart()
    world.run(300)
    assert world.audits() == 2
    world.close()


def test_where_audits_are_off_nothing_is_asked(tmp_path: Path) -> None:
    world = _Audited(tmp_path)
    world.put()
    world.dropped_and_repaired()
    world.skip(1900)
    world.run(10)

    assert world.audits() == 0
    world.close()


def test_the_state_on_mariadb_keeps_audits_too(tmp_path: Path, database: sa.URL) -> None:
    world = _Audited(tmp_path, Options(audit=AuditMode.INCIDENTS), url=database)
    world.put()
    world.receive("LOST", arrives=False)
    repository = world.hook.auditor.repository
    for _ in range(2):
        repository.want([wish_after("loja", world.clock.time())])
        world.run(65)

    assert world.missing() == 1
    world.arrive("LOST")
    world.skip(1750)
    world.run(100)
    assert world.missing() == 0
    assert [one.arrived_at is not None for one in repository.missed("loja")] == [True]
    prune_audits(world.hook.database, GATEWAY, [])
    assert repository.last() == {}
    world.close()


def test_two_hooks_at_once_make_one_audit(world: _Audited) -> None:
    world.hook.auditor.repository.want_now("loja")

    claimed = [hook.auditor.repository.claim() for hook in world.hooks]

    assert [len(one) for one in claimed] == [1, 0]
