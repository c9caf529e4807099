"""Messages that stand under another name than the channel's."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tests.support.clock import HandMovedClock
from zapwatch.channels import Channel, NamedChannel, Status
from zapwatch.messages.history import History
from zapwatch.messages.message import (
    ActivitySnapshot,
    Delivered,
    Direction,
    RecentMessages,
    no_pause,
)
from zapwatch.messages.source import AliasedMessages

_LOJA = Channel("Loja 1", Status.CONNECTED, alias="ABCDEF-12345")
_OBRA = Channel("obra", Status.CONNECTED)
_NAMED = (NamedChannel("Loja 1", "x"), NamedChannel("obra", "y", "GHIJKL-67890"))
_NOW = 1_770_000_000.0


class Source:
    """A source that knows both names of a channel; notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.restored = ""

    def poll(self, channels: Collection[Channel]) -> ActivitySnapshot:
        self.asked = [channel.message_key for channel in channels]
        last = {"ABCDEF-12345": _NOW - 5, "Loja 1": _NOW - 9, "GHIJKL-67890": _NOW - 7, "x": _NOW}
        counts = {
            ("ABCDEF-12345", Direction.IN): 2,
            ("Loja 1", Direction.IN): 1,
            ("GHIJKL-67890", Direction.OUT): 4,
        }
        return ActivitySnapshot(
            _NOW,
            last,
            counts,
            7,
            last_heard={"ABCDEF-12345": _NOW - 6},
            undecryptable={"ABCDEF-12345": 3, "Loja 1": 2, "x": 1},
        )

    find = poll

    def checkpoint(self) -> str:
        return "as far as this"

    def restore(self, checkpoint: str) -> None:
        self.restored = checkpoint

    def recent(self, seconds: float) -> RecentMessages:
        return RecentMessages({"ABCDEF-12345": seconds / 2, "Loja 1": seconds}, {"token"}, "gap")

    def histories(self, wanted: Collection[str], pause: Callable[[], None]) -> dict[str, History]:
        pause()
        self.asked = sorted(wanted)
        found = {}
        for minute, key in enumerate(("ABCDEF-12345", "Loja 1", "GHIJKL-67890")):
            found[key] = History(_NOW)
            found[key].note(_NOW - 60 * minute)
        return found

    def delivered(
        self, keys: Collection[str], since: float, pause: Callable[[], None] = no_pause
    ) -> Delivered:
        pause()
        assert since == _NOW
        return Delivered(lambda *_: (), keys)

    def close(self) -> None:
        """Do nothing."""


class Listed:
    """The channel list; counts how often it is asked for."""

    def __init__(self, *channels: Channel) -> None:
        self.times = 0
        self._channels = channels or (_LOJA, _OBRA)

    def __call__(self) -> list[Channel]:
        self.times += 1
        return [*self._channels]


def test_what_is_known_under_either_name_is_the_channels() -> None:
    source = Source()
    view = AliasedMessages(source, _NAMED, Listed()).poll([_LOJA, _OBRA])
    assert source.asked == ["ABCDEF-12345", "GHIJKL-67890"]
    assert view.last_message == {"Loja 1": _NOW - 5, "obra": _NOW - 7, "x": _NOW}
    assert view.last_heard == {"Loja 1": _NOW - 6}
    assert view.messages == {("Loja 1", Direction.IN): 3, ("obra", Direction.OUT): 4}
    assert view.undecryptable == {"Loja 1": 5, "x": 1}


def test_the_list_is_asked_once_for_an_alias_that_is_not_known() -> None:
    listed = Listed()
    messages = AliasedMessages(Source(), _NAMED, listed)
    for _ in range(2):
        recent = messages.recent(60)
        assert recent == RecentMessages({"Loja 1": 30}, {"token"}, "gap")
    assert listed.times == 1


def test_an_alias_that_the_list_does_not_tell_costs_no_list_each_time() -> None:
    listed = Listed(Channel("Loja 1", Status.UNKNOWN))
    messages = AliasedMessages(Source(), _NAMED, listed)
    for _ in range(3):
        assert messages.recent(60).ages["Loja 1"] == 60
    assert listed.times == 1


def test_one_that_nobody_has_listed_is_found_by_its_alias_too() -> None:
    source, listed = Source(), Listed()
    messages = AliasedMessages(source, _NAMED, listed)
    view = messages.find([Channel("Loja 1", Status.UNKNOWN), Channel("obra", Status.UNKNOWN)])
    assert source.asked == ["ABCDEF-12345", "GHIJKL-67890"]
    assert view.last_message["Loja 1"] == _NOW - 5
    assert listed.times == 1


def test_a_history_is_that_of_both_names() -> None:
    source = Source()
    messages = AliasedMessages(source, _NAMED, Listed())
    histories = messages.histories(["Loja 1", "obra"], lambda: None)
    assert source.asked == ["ABCDEF-12345", "GHIJKL-67890", "Loja 1", "obra"]
    assert {key: one.messages for key, one in histories.items()} == {"Loja 1": 2, "obra": 1}
    assert sum(histories["Loja 1"].busy_minutes()) == 2


def test_a_checkpoint_is_that_of_the_source() -> None:
    source = Source()
    messages = AliasedMessages(source, _NAMED, Listed())
    assert messages.checkpoint() == "as far as this"
    messages.restore("an earlier one")
    assert source.restored == "an earlier one"


def test_an_alias_that_is_the_name_is_no_other_channel() -> None:
    same = Channel("loja", Status.CONNECTED, alias="LOJA")
    messages = AliasedMessages(Source(), [NamedChannel("loja", "x", "LOJA")], Listed())
    assert messages.poll([same]).last_message["x"] == _NOW


def test_what_was_delivered_is_asked_by_the_names_of_the_source() -> None:
    messages = AliasedMessages(Source(), _NAMED, Listed())
    pauses: list[None] = []
    found = messages.delivered([_LOJA.message_key], _NOW, lambda: pauses.append(None))
    assert (found.heard, len(pauses)) == (["ABCDEF-12345"], 1)


def test_a_list_that_tells_the_names_is_asked_once_a_minute() -> None:
    """Where the settings name no channels, a new one may have been listed since."""
    clock, listed = HandMovedClock(), Listed()
    messages = AliasedMessages(Source(), (), listed, clock=clock)
    for _ in range(2):
        assert messages.recent(60).ages == {"Loja 1": 30}
    assert listed.times == 1
    clock.forward(60)
    messages.histories(["Loja 1"], lambda: None)
    assert listed.times == 2
