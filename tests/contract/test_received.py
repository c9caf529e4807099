"""What adapters tell of the messages that a channel has received."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from demo.simulator.apis.calls import WEBHOOK_SECRET
from demo.simulator.apis.registry import APIS
from demo.simulator.knobs import Posting
from reconnect_hook.delivery import WebhookFault, WebhookMemory
from tests.contract.suite import DECLARED_WAHA, NUMBER, SECRET, Phone, answering_as, world_of
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError
from zapwatch.gateways.helpers import Entry, read_chats
from zapwatch.gateways.registry import ADAPTERS
from zapwatch.messages.message import Direction, Received, Wanted, bare_id, parse_event

_LISTING = [kind for kind, adapter in ADAPTERS.items() if adapter.lists_messages]
_HOUR = 3600.0


@pytest.fixture(params=[*_LISTING, "waha by chat", "waha described"])
def phone(request: pytest.FixtureRequest) -> Iterator[Phone]:
    kind, _, way = request.param.partition(" ")
    with world_of(kind, DECLARED_WAHA if way == "described" else None) as world:
        world.simulator.put_channel("loja", engine="WEBJS" if way == "by chat" else "NOWEB")
        yield Phone(world)


def test_all_messages_of_the_time_are_listed_and_no_others(phone: Phone) -> None:
    phone.gets("OLD", ago=2 * _HOUR)
    phone.gets("A", chat="5500000000001@c.us")
    phone.gets("B", chat="5500000000002@c.us", kind="image")
    phone.gets("FUTURE", ago=-60)
    phone.gets("OWN", outgoing=True)
    received = phone.received()
    assert sorted((one.id, one.chat, one.at) for one in received.messages) == [
        ("A", "0001", phone.now - 600),
        ("B", "0002", phone.now - 600),
    ]
    assert received.cannot_know == ""


def test_neither_text_nor_number_is_taken(phone: Phone) -> None:
    phone.gets("A", words="the text of a person", chat=f"{NUMBER}@c.us")
    told = repr(phone.received())
    assert "text of a person" not in told
    assert NUMBER not in told


def test_groups_and_lids_are_told_by_the_bare_id(phone: Phone) -> None:
    phone.gets("GROUP", chat="120363000000000001@g.us", participant=f"{NUMBER}@c.us")
    phone.gets("LID", chat="100000000000001@lid")
    assert phone.ids() == {"GROUP", "LID"}


def test_what_is_no_message_of_a_person_is_left_out(phone: Phone) -> None:
    for kind in ("protocol", "reaction"):
        phone.gets(kind.upper(), kind=kind)
    phone.gets("STATUS", chat="status@broadcast", participant=f"{NUMBER}@c.us")
    phone.gets("NEWS", chat="120363000000000002@newsletter")
    phone.gets("A")
    assert phone.ids() == {"A"}


def test_ciphertext_counts_once_it_is_decrypted(phone: Phone) -> None:
    phone.gets("SECRET", kind="ciphertext")
    phone.gets("A")
    assert phone.ids() == {"A"}
    phone.gets("SECRET")
    assert phone.ids() == {"A", "SECRET"}


def test_a_message_that_is_stored_twice_counts_once(phone: Phone) -> None:
    phone.gets("A")
    phone.gets("A", ago=500)
    assert phone.ids() == {"A"}


def test_the_messages_of_many_pages_are_all_listed(phone: Phone) -> None:
    for number in range(1500):
        phone.gets(f"ID{number}", ago=1 + number / 2, outgoing=number % 10 == 9)
    phone.world.simulator.clear_requests()
    assert len(phone.ids()) == 1350
    # Some have a hundred to a page at most, and do not leave out our own.
    assert len(phone.world.asked) <= 18


def test_only_what_the_time_needs_is_asked_for(phone: Phone) -> None:
    for number in range(2000):
        phone.gets(f"OLD{number}", ago=2 * _HOUR + number)
    phone.gets("A")
    phone.world.simulator.clear_requests()
    assert phone.ids() == {"A"}
    assert len(phone.world.asked) <= 8


def test_a_gateway_that_keeps_nothing_cannot_know(phone: Phone) -> None:
    phone.world.simulator.put_channel("loja", stores=False)
    phone.gets("A")
    if (
        phone.world.kind == "waha"
        and phone.world.simulator.state()["channels"][0]["engine"] != "NOWEB"
    ):
        return  # its page has them in any case
    received = phone.received()
    assert received.messages == ()
    assert received.cannot_know


@pytest.mark.parametrize(
    "more", [{"chat": f"{NUMBER}@c.us"}, {"chat": "120363000000000001@g.us"}, {"kind": "image"}]
)
def test_an_event_is_made_of_a_message_as_the_gateway_itself_posts_it(
    phone: Phone, more: dict[str, Any]
) -> None:
    kind = phone.world.kind
    message = phone.gets("A", words="the text of a person", **more)
    phone.gets("B")

    since = phone.now - _HOUR
    wanted = Wanted(since, phone.now, {"A"}.intersection, events=True)
    received = phone.world.gateway.received(phone.world.channel(), wanted)

    if not phone.world.gateway.makes_events:
        assert received.events == {}
        return
    assert received.events.keys() == {"A"}
    assert "text of a person" not in repr(received)
    made = phone.world.gateway.with_media(phone.world.channel(), received.events["A"])
    posted: dict[str, Any] = APIS[kind].event(message)
    assert made["event"] == {"waha": "message"}.get(kind, posted["event"])
    place = {"waha": "payload", "evolution": "data"}.get(kind)
    if place is not None:
        made, posted = made[place], posted[place]
    assert {name: made.get(name) for name in posted} == posted
    [parsed] = parse_event(
        ADAPTERS[kind].read_event, json.dumps(received.events["A"]).encode(), phone.now
    )
    channel = phone.world.channel()
    assert (parsed.key, parsed.direction) == (channel.message_key, Direction.IN)
    assert bare_id(parsed.id) == "A"


def test_the_newest_is_found_by_few_calls(phone: Phone) -> None:
    for number in range(600):
        phone.gets(f"OLD{number}", ago=1000 + number, chat=f"55000000001{number % 40:02}@c.us")
    for number in range(5):
        phone.gets(f"OWN{number}", ago=50, outgoing=True)
    phone.gets("NEWEST", ago=120, chat="5500000000009@c.us")
    phone.world.simulator.clear_requests()
    received = phone.received(newest=True)
    assert max(received.messages, key=lambda one: one.at).id == "NEWEST"
    assert len(phone.world.asked) <= 8


@pytest.mark.parametrize("kind", ["evolution", "waha"])
@pytest.mark.parametrize(
    ("posting", "fault", "before"),
    [
        ("set", None, None),
        ("global", WebhookFault.GONE, WebhookFault.MISSING),
        ("wiped", WebhookFault.GONE, WebhookFault.MISSING),
        ("unselected", WebhookFault.NOT_SELECTED, WebhookFault.NOT_SELECTED),
        ("disabled", WebhookFault.DISABLED, WebhookFault.DISABLED),
        ("moved", WebhookFault.CHANGED, None),
    ],
)
def test_what_is_wrong_with_a_webhook_is_told_without_its_secrets(
    kind: str, posting: Posting, fault: WebhookFault | None, before: WebhookFault | None
) -> None:
    """``before``: what is told where it was never read while messages arrived."""
    with world_of(kind) as world:
        new = WebhookMemory.load(None)
        good = new
        for at in (100.0, 4000.0):
            config = world.gateway.webhook(world.channel())
            assert config is not None
            good = good.arriving(config, newest_at=at, at=at)
            again = new.arriving(config, newest_at=at, at=at)
            assert again.arriving(config, newest_at=at - 1, at=at + 3600).good is None
        world.simulator.put_channel("loja", posting=posting)
        config = world.gateway.webhook(world.channel())

        found, words = WebhookMemory.load(good.dump()).broken(config, 5000.0)
        told = f"{found.dump()} {words} {config!r}"
        if kind == "waha" and posting == "disabled":
            # It has no such switch: no event is selected.
            fault = before = WebhookFault.NOT_SELECTED

        assert found.fault == fault
        assert new.broken(config, 5000.0)[0].fault == before
        assert bool(words)
        assert WEBHOOK_SECRET not in told
        assert WebhookMemory.load(found.dump()) == found


_PAGE = "limit=100&offset="
_OPENWA = f"GET /api/sessions/u-1/messages?inlineMedia=false&{_PAGE}"
_GOWA = f"GET /chat/1%40c.us/messages?is_from_me=false&{_PAGE}"
_TEXT = {"id": {"_serialized": "false_1@c.us_A"}, "timestamp": 5, "from": "1@c.us", "type": "chat"}


@pytest.mark.parametrize(
    ("kind", "answers", "ids"),
    [
        (
            "openwa",
            {
                "GET /api/sessions?limit=1000&offset=0": [
                    {"id": "u-1", "name": "loja", "status": "ready"}
                ],
                f"{_OPENWA}0": {
                    "messages": [
                        {"waMessageId": f"false_1@c.us_{n}", "timestamp": 5, "chatId": "1@c.us"}
                        | row
                        for n, row in enumerate(
                            (
                                {"direction": "incoming", "type": "text"},
                                {"direction": "outgoing", "type": "text"},
                                {"direction": "incoming", "type": "call"},
                                {"direction": "incoming", "type": "revoked"},
                                {"direction": "incoming", "chatId": "status@broadcast"},
                            )
                        )
                    ]
                },
                f"{_OPENWA}100": {"messages": []},
            },
            {"0"},
        ),
        (
            "gowa",
            {
                f"GET /chats?{_PAGE}0": {
                    "results": {
                        "data": [{"jid": "1@c.us", "last_message_time": "2026-02-02T02:40:00Z"}]
                    }
                },
                f"GET /chats?{_PAGE}100": {"results": {"data": []}},
                f"{_GOWA}0": {
                    "results": {
                        "data": [
                            {
                                "id": str(n),
                                "timestamp": "2026-02-02T02:40:00Z",
                                "chat_jid": "1@c.us",
                            }
                            | row
                            for n, row in enumerate(
                                (
                                    {"is_from_me": False, "media_type": ""},
                                    {"is_from_me": False, "media_type": "image"},
                                    {"is_from_me": False, "media_type": "call"},
                                    {"is_from_me": True, "media_type": ""},
                                )
                            )
                        ]
                    }
                },
                f"{_GOWA}100": {"results": {"data": []}},
            },
            {"0", "1"},
        ),
        (
            "wwebjs-api",
            {
                "GET /client/getChats/loja": {
                    "chats": [
                        {"id": {"_serialized": chat}, "timestamp": 5}
                        for chat in ("1@c.us", "status@broadcast")
                    ]
                },
                "POST /chat/fetchMessages/loja": {
                    "messages": [
                        _TEXT | {"fromMe": False},
                        _TEXT | {"id": {"id": "B", "fromMe": False}},
                        _TEXT | {"fromMe": True, "id": {"id": "C"}},
                        _TEXT | {"fromMe": False, "id": {"id": "D"}, "type": "revoked"},
                        _TEXT | {"fromMe": False, "id": {"id": "E"}, "type": "call_log"},
                    ]
                },
            },
            {"A", "B"},
        ),
    ],
)
def test_what_a_described_gateway_lists_is_a_message_of_a_person_or_not(
    monkeypatch: pytest.MonkeyPatch, kind: str, answers: dict[str, object], ids: set[str]
) -> None:
    gateway, asked = answering_as(
        kind, monkeypatch, {request: (200, body) for request, body in answers.items()}
    )
    received = gateway.received(Channel("loja", Status.CONNECTED), Wanted(2.0, 1_780_000_000.0))
    assert sorted(request for request, _ in asked) == sorted(answers)
    assert {one.id for one in received.messages} == ids
    assert received.cannot_know == ""


@pytest.mark.parametrize("are_messages", [True, False])
def test_a_list_without_an_end_is_given_up(are_messages: bool) -> None:
    pages = (
        [
            Entry(5.0, f"{page}-{n}" if are_messages else None)
            for n in range(1000 if are_messages else 1)
        ]
        for page in itertools.count()
    )
    received = read_chats([pages], Wanted(0.0, 9.0))
    assert received.cannot_know == "50000 messages at most are compared"
    assert received.count == (51_000 if are_messages else 0)


@pytest.mark.parametrize("fault", ["html_502", "http_500_json", "reset", "wrong_shape_null"])
def test_a_list_that_fails_is_no_empty_one(phone: Phone, fault: str) -> None:
    phone.gets("A")
    phone.world.simulator.fault("messages", fault)
    with pytest.raises(GatewayError):
        phone.received()


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if kind not in _LISTING])
def test_a_gateway_without_such_a_list_cannot_know(kind: str) -> None:
    gateway = ADAPTERS[kind]("http://127.0.0.1:9", SECRET)
    received = gateway.received(Channel("loja", Status.CONNECTED), Wanted(0, 1))
    assert received == Received(cannot_know="this gateway has no call that lists messages")
