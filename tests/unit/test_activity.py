"""What the channel list itself tells of when a channel was active."""

from __future__ import annotations

from typing import Any

import pytest

from zapwatch.channels import Channel, Status
from zapwatch.clock import Clock
from zapwatch.messages.channel_list import Activity
from zapwatch.messages.message import ActivitySnapshot, MessageLogError

_NOW = 1_770_000_000.0


class World(Clock):
    """A gateway's list, and the source that looks at it."""

    def __init__(self) -> None:
        self.now = _NOW
        self.put_back = 0.0
        self.listed: list[Channel] | None = []
        self.source = Activity(self._list, clock=self)

    def time(self) -> float:
        return self.now - self.put_back

    def monotonic(self) -> float:
        return self.now - _NOW

    def _list(self) -> list[Channel]:
        if self.listed is None:
            raise MessageLogError("no list")
        return self.listed

    def list(self, *, activity: float | None = None, count: int | None = None) -> None:
        loja = Channel("Loja 1", Status.CONNECTED, activity=activity, message_count=count)
        self.listed = [loja]

    def poll(self) -> ActivitySnapshot:
        return self.source.poll(())

    def age(self, **listed: Any) -> float | None:
        """Return the age that the list tells, or one that tells this."""
        if listed:
            self.list(**listed)
        return self.poll().age("Loja 1")

    def was_active(self, seconds: float) -> bool:
        return "Loja 1" in self.source.recent(seconds).ages


@pytest.fixture
def world() -> World:
    return World()


def test_the_activity_that_is_listed_is_the_age(world: World) -> None:
    assert world.age(activity=_NOW - 70) == 70
    world.now += 5
    assert world.age() == 75
    assert world.was_active(75)
    assert not world.was_active(74)


@pytest.mark.parametrize("ahead", [500, 1e9])
def test_an_activity_from_a_clock_that_is_ahead_is_of_when_it_was_first_listed(
    world: World, ahead: float
) -> None:
    assert world.age(activity=_NOW + ahead) == 0
    world.now += 600
    assert world.age() == 600
    assert world.age(activity=_NOW + ahead + 600) == 0
    world.now += 60
    assert world.age(activity=_NOW + 10) == 650


def test_what_is_absent_is_unknown_and_not_silent(world: World) -> None:
    world.list()
    view = world.poll()
    assert view.age("Loja 1") is None
    assert not view.counted
    assert not world.was_active(1e9)


def test_a_count_that_grows_is_a_message(world: World) -> None:
    assert world.age(count=10) == 0
    world.now += 100
    assert world.age() == 100
    assert world.age(count=11) == 0
    world.now += 30
    assert world.age(count=3) == 30
    assert world.age(count=4) == 0


def test_a_clock_that_is_put_back_and_corrected_makes_nothing_old(world: World) -> None:
    ages: list[float | None] = []
    for put_back, count in ((0, 10), (5 * 3600, 10), (5 * 3600, 11), (5 * 3600, 11), (0, 11)):
        world.put_back = put_back
        world.now += 60
        ages.append(world.age(count=count))
    assert ages == [0, 60, 0, 60, 120]


@pytest.mark.parametrize("jump", [3600.0, 86_400.0])
@pytest.mark.parametrize("listed", [{"activity": _NOW - 70}, {"count": 10}])
def test_time_that_the_clock_skips_makes_no_channel_silent(
    world: World, jump: float, listed: dict[str, Any]
) -> None:
    """As when NTP sets it, or the machine was suspended; then it may be set back."""
    before = world.age(**listed)
    assert before is not None
    for ahead in (0.0, jump, jump, jump + 299, 2 * jump + 299, 0.0):
        world.put_back = -ahead
        world.now += 60
        before += 60
        # A small correction counts, as it cannot be told from time that has passed.
        assert world.age() == pytest.approx(before, abs=299)
    world.put_back = -jump
    world.age()
    world.now += 60
    assert world.age(activity=world.time() - 5) == 5


def test_that_a_count_is_there_is_no_proof_of_a_message(world: World) -> None:
    world.list(count=10)
    world.poll()
    assert not world.was_active(60)
    assert world.source.find(world.listed or ()).age("Loja 1") is None
    world.list(count=11)
    assert world.was_active(60)
    world.now += 61
    assert not world.was_active(60)


def test_an_activity_goes_before_a_count(world: World) -> None:
    assert world.age(activity=_NOW - 400, count=10) == 400


def test_without_a_list_nothing_is_known(world: World) -> None:
    world.listed = None
    with pytest.raises(MessageLogError):
        world.poll()
    with pytest.raises(MessageLogError):
        world.was_active(60)


def test_a_channel_that_left_the_list_is_forgotten(world: World) -> None:
    world.list(count=10)
    world.poll()
    world.listed = []
    assert world.poll().last_message == {}
    world.now += 50
    assert world.age(count=10) == 0


@pytest.mark.parametrize("checkpoint", ["", "{", "[]", "null", '{"a": 1}', '{"a": ["x", 1, 0]}'])
def test_a_checkpoint_of_no_use_is_ignored(world: World, checkpoint: str) -> None:
    world.source.restore(checkpoint)
    assert world.age(count=10) == 0
