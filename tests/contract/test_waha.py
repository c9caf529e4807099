"""The adapter for WAHA."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from tests.contract.suite import (
    DECLARED_WAHA,
    NUMBER,
    SECRET,
    GatewayContract,
    Phone,
    World,
    answering_as,
)
from tests.support.raw_server import Conversation, RawServer, answering
from zapwatch.channels import Channel, Status
from zapwatch.config.load_gateways import read_gateways
from zapwatch.gateways.base import GatewayError, QrKind, WebhookConfig
from zapwatch.gateways.declaration import Declaration
from zapwatch.gateways.registry import make_gateway
from zapwatch.gateways.waha import WahaGateway
from zapwatch.messages.message import Wanted


class TestWaha(GatewayContract):
    kind = "waha"
    statuses = {  # noqa: RUF012
        "WORKING": Status.CONNECTED,
        "STOPPED": Status.DISCONNECTED,
        "FAILED": Status.DISCONNECTED,
        "STARTING": Status.INITIALIZING,
        "SCAN_QR_CODE": Status.QR_REQUIRED,
        "PASSKEY_REQUIRED": Status.QR_REQUIRED,
        "PASSKEY_CONFIRMATION_REQUIRED": Status.QR_REQUIRED,
    }
    heals_with = ["restart"]  # noqa: RUF012

    def test_a_session_that_starts_anew_by_itself_is_only_waited_for(self, world: World) -> None:
        world.simulator.flap("loja")
        channel = world.channel()
        assert channel.status is Status.INITIALIZING
        assert world.gateway.reconnect(channel, silent=False).kind is QrKind.INITIALIZING
        world.clock.forward(1)
        assert world.gateway.qr("loja").kind is QrKind.ACCEPTED
        assert not {"restart", "start_session"} & set(world.asked)

    def test_a_code_that_nobody_scans_fails_the_session_which_then_is_restarted(
        self, world: World
    ) -> None:
        world.simulator.put_channel("loja", qr_seconds=180)
        world.simulator.unpair("loja")
        world.gateway.reconnect(world.channel(), silent=False)
        assert world.gateway.qr("loja").kind is QrKind.QR
        world.clock.forward(180)
        assert world.gateway.qr("loja").kind is QrKind.NOT_STARTED
        world.gateway.start_session("loja")
        assert world.asked[-1] == "restart", "start does nothing to one that has failed"
        assert world.gateway.qr("loja").kind is QrKind.QR

    @pytest.mark.parametrize(("fault", "is_posted"), [("http_500_json", True), ("reset", False)])
    def test_a_file_that_is_gone_keeps_no_message_back(
        self, world: World, fault: str, is_posted: bool
    ) -> None:
        phone = Phone(world)
        phone.gets("A", kind="image")
        channel = world.channel()
        event = world.gateway.received(channel, Wanted(0, phone.now, events=True)).events["A"]
        world.simulator.fault("media", fault)
        if is_posted:
            assert world.gateway.with_media(channel, event) == event
        else:
            with pytest.raises(GatewayError):
                world.gateway.with_media(channel, event)

    def test_a_name_that_no_url_can_hold_keeps_no_message_back(self) -> None:
        row = {"id": "false_\ud800_3EB0", "hasMedia": True}
        event = {"event": "message", "payload": row}
        chats = [{"id": "\ud800", "lastMessage": {"timestamp": 1}}]
        answers = iter([answering({"engine": {"engine": "WEBJS"}}), answering(chats)])

        def talk(conversation: Conversation) -> None:
            next(answers)(conversation)

        with RawServer(talk) as server:
            gateway = WahaGateway(server.url, SECRET)
            channel = Channel("loja", Status.CONNECTED)
            assert gateway.with_media(channel, event) == event
            assert gateway.received(channel, Wanted(0.0, 2.0, newest=True)).messages == ()

    def test_each_row_of_a_list_is_a_message_of_a_person_or_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost = {"timestamp": None}  # as with a filter by time, in 2026.4.1
        people: tuple[dict[str, object], ...] = (
            {},
            lost | {"_data": {"messageTimestamp": 5}},
            lost | {"_data": {"messageTimestamp": {"low": 5, "high": 0}}},
            {"from": "1@lid", "_data": {"Message": {"conversation": "hello"}}},
        )
        others: tuple[dict[str, object], ...] = (
            {"fromMe": True},
            {"fromMe": None},
            {"id": "false_1@c.us_A B"},
            {"id": "false_status@broadcast_A_1@c.us"},
            {"id": "false_1@newsletter_A"},
            {"from": "1@broadcast"},
            {"_data": {"messageStubType": 2}},
            {"_data": {"type": "revoked"}},
            {"_data": {"message": {"protocolMessage": {}}}},
            {"_data": {"Message": {"reactionMessage": {}}}},
        )
        rows = [
            {"id": f"false_1@c.us_{n}", "timestamp": 5, "from": "1@c.us", "fromMe": False} | row
            for n, row in enumerate(people + others)
        ]
        query = "sortBy=timestamp&sortOrder=desc&downloadMedia=false&filter.fromMe=false&limit=200"
        answers: dict[str, tuple[int, object]] = {
            f"GET /api/loja/chats/all/messages?{query}&offset={offset}": (200, page)
            # WAHA drops rows after paging.
            for offset, page in ((0, rows[:1]), (200, []), (400, rows[1:]), (600, []), (800, []))
        }
        answers["GET /api/sessions/loja"] = (200, {"engine": {"engine": "GOWS"}})
        gateway, _ = answering_as(self.kind, monkeypatch, answers)
        received = gateway.received(Channel("loja", Status.CONNECTED), Wanted(0.0, 9.0))
        assert [one.id for one in received.messages] == [str(n) for n in range(len(people))]
        assert received.cannot_know == ""

    @pytest.mark.parametrize(
        ("engine", "config", "why"),
        [
            ("GOWS", {"gows": {"storage": {"messages": False}}}, "storage.messages is off"),
            ("NOWEB", {"noweb": {"store": {"enabled": False}}}, "noweb.store is off"),
            ("GOWS", {"noweb": {"store": {"enabled": False}}}, ""),
        ],
    )
    def test_a_session_that_stores_no_message_cannot_know(
        self, monkeypatch: pytest.MonkeyPatch, engine: str, config: object, why: str
    ) -> None:
        session = {"engine": {"engine": engine}, "config": config}
        answers = defaultdict[str, tuple[int, object]](lambda: (200, []))
        answers["GET /api/sessions/loja"] = (200, session)
        gateway, _ = answering_as(self.kind, monkeypatch, answers)
        told = gateway.received(Channel("loja", Status.CONNECTED), Wanted(0.0, 9.0)).cannot_know
        assert why in told
        assert bool(why) is bool(told)

    @pytest.mark.parametrize(
        ("webhooks", "name"),
        [
            ([{"events": ["message.any", "session.status"]}], "message.any"),
            ([{"events": ["message.any"]}, {"events": ["message"]}], "message"),
            ([{"events": ["*"]}], "message"),
            ([{"events": None}, "x", {}], "message"),
            (None, "message"),
        ],
    )
    def test_an_event_has_the_name_that_the_sessions_webhooks_want(
        self, monkeypatch: pytest.MonkeyPatch, webhooks: object, name: str
    ) -> None:
        row = {"id": "false_1@c.us_A", "timestamp": 5, "from": "1@c.us", "fromMe": False}
        chats = [{"id": "1@c.us", "lastMessage": {"timestamp": 5}}] * 2
        session = {"engine": {"engine": "WEBJS"}, "config": {"webhooks": webhooks}}
        one = "GET /api/loja/chats/1%40c.us/messages?sortBy=timestamp&sortOrder=desc"
        one += "&downloadMedia=false&filter.fromMe=false&limit=200&offset="
        answers: dict[str, tuple[int, object]] = {
            "GET /api/sessions/loja": (200, session),
            "GET /api/loja/chats/overview?limit=200&offset=0": (200, chats),
            **{f"GET /api/loja/chats/overview?limit=200&offset={n}": (200, []) for n in (200, 400)},
            f"{one}0": (200, [row]),
            **{f"{one}{offset}": (200, []) for offset in (200, 400)},
        }
        gateway, asked = answering_as(self.kind, monkeypatch, answers)
        wanted = Wanted(0.0, 9.0, events=True)
        event = gateway.received(Channel("loja", Status.CONNECTED), wanted).events["A"]
        assert (event["event"], event["payload"]) == (name, {"source": "app"} | row)
        assert len(asked) == len(answers), "no chat is read twice"

    @pytest.mark.parametrize(
        ("events", "urls", "posts"),
        [
            (["session.status", "message"], ["/1"], True),
            (["message.any", "message"], ["/0", "/1"], True),
            (["session.status", "state.change"], ["/0", "/1"], False),
        ],
    )
    def test_only_the_webhooks_that_post_messages_count_where_any_does(
        self, monkeypatch: pytest.MonkeyPatch, events: list[str], urls: list[str], posts: bool
    ) -> None:
        hooks = [{"url": f"/{n}", "events": [event]} for n, event in enumerate(events)]
        answers = {"GET /api/sessions/loja": (200, {"config": {"webhooks": hooks}})}
        gateway, _ = answering_as(self.kind, monkeypatch, answers)
        found = gateway.webhook(Channel("loja", Status.CONNECTED))
        assert found == WebhookConfig(tuple(urls), posts_messages=posts)

    def test_chats_are_listed_until_a_page_has_only_old_ones(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pinned chat is first, however old."""
        listed: list[list[int | None]] = [[1, 5, None], [None, 5], [1, 1], [5]]
        pages: dict[str, tuple[int, object]] = {
            f"GET /api/loja/chats/overview?limit=200&offset={200 * page}": (
                200,
                [
                    {"id": f"{page}{n}@c.us", "lastMessage": at and {"timestamp": at}}
                    for n, at in enumerate(times)
                ],
            )
            for page, times in enumerate(listed)
        }
        pages["GET /api/sessions/loja"] = (200, {"engine": {"engine": "WEBJS"}})
        answers = defaultdict[str, tuple[int, object]](lambda: (200, []), pages)
        gateway, asked = answering_as(self.kind, monkeypatch, answers)
        gateway.received(Channel("loja", Status.CONNECTED), Wanted(3.0, 9.0))
        paths = [request.partition("?")[0] for request, _ in asked]
        assert paths.count("GET /api/loja/chats/overview") == 3
        chats = {path.split("/")[4] for path in paths if path.endswith("/messages")}
        assert chats == {"01%40c.us", "11%40c.us"}

    @pytest.mark.parametrize(("status", "is_done"), [(200, True), (204, True), (500, False)])
    def test_a_message_is_taken_back_also_where_the_answer_is_empty(
        self, monkeypatch: pytest.MonkeyPatch, status: int, is_done: bool
    ) -> None:
        path = f"DELETE /api/loja/chats/{NUMBER}%40c.us/messages/A"
        gateway, _ = answering_as(self.kind, monkeypatch, {path: (status, b"")})
        channel = Channel("loja", Status.CONNECTED)
        if is_done:
            gateway.take_back(channel, NUMBER, "A")
        else:
            with pytest.raises(GatewayError):
                gateway.take_back(channel, NUMBER, "A")

    @pytest.mark.parametrize("status", ["PASSKEY_REQUIRED", "PASSKEY_CONFIRMATION_REQUIRED"])
    def test_a_passkey_waits_for_a_person_as_a_code_does(self, world: World, status: str) -> None:
        world.simulator.put_channel("loja", status_text=status)
        channel = world.channel()
        assert channel.status is Status.QR_REQUIRED
        answer = world.gateway.reconnect(channel, silent=False)
        assert (answer.kind, answer.image) == (QrKind.QR, None)
        assert set(world.asked) == {"list", "status"}

    def test_a_core_that_knows_no_such_session_is_a_failure(self) -> None:
        body = {"statusCode": 422, "message": "WAHA Core support only 'default' session"}
        with RawServer(answering(body, status=422)) as server:
            gateway = WahaGateway(server.url, SECRET)
            with pytest.raises(GatewayError, match="support only 'default'"):
                gateway.start_session("loja")

    def test_an_old_core_is_watched_and_repaired(self, world: World) -> None:
        world.simulator.put_channel("loja", old_core=True, tells_activity=True)
        gateway = world.another(secret="any one")
        world.gateway.send_text(world.channel(), NUMBER, "hello")
        assert world.channel().activity is None, "it has none"
        world.simulator.drop("loja")
        gateway.reconnect(world.channel(), silent=False)
        world.clock.forward(1)
        assert world.channel().connected

    def test_a_code_without_an_image_is_a_failure(self) -> None:
        answer = {"status": "SCAN_QR_CODE", "mimetype": "text/plain", "data": "aGVsbG8="}
        with RawServer(answering(answer)) as server, pytest.raises(GatewayError):
            WahaGateway(server.url, SECRET).qr("loja")

    def test_number_and_activity_are_told_in_seconds(self, world: World) -> None:
        assert world.channel().activity is None, "none yet: unknown, and not silent"
        world.gateway.send_text(world.channel(), NUMBER, "hello")
        channel = world.channel()
        assert channel.number == world.simulator.number("loja")
        assert channel.activity == pytest.approx(world.clock.time(), abs=0.001)
        world.simulator.put_channel("loja", tells_activity=False)
        assert world.channel().activity is None

    def test_a_query_without_the_own_number_is_none(self, world: World) -> None:
        with pytest.raises(GatewayError, match="own number"):
            world.gateway.query(Channel("loja", Status.CONNECTED))

    @pytest.mark.parametrize(
        ("me", "number"),
        [
            ({"id": "5500000000001@c.us"}, NUMBER),
            ({"id": "5500000000001:7@s.whatsapp.net"}, NUMBER),
            ({"id": "+5500000000001"}, NUMBER),
            ({"id": "5500000000001@lid"}, None),
            ({"id": "x@c.us"}, None),
            ({"id": None}, None),
            ("5500000000001", None),
            (None, None),
        ],
    )
    def test_a_hostile_entry_tells_nothing(self, me: object, number: str | None) -> None:
        odd: tuple[object, ...] = (None, "soon", True, -5, 1e400, [1])
        entries = [
            {"name": f"loja {n}", "status": "WORKING", "me": me, "timestamps": {"activity": one}}
            for n, one in enumerate(odd)
        ]
        with RawServer(answering([{}, 7, *entries])) as server:
            listed = WahaGateway(server.url, SECRET).list_channels()
        assert listed.channels == tuple(
            Channel(f"loja {n}", Status.CONNECTED, number=number) for n in range(len(odd))
        )
        assert sum(listed.left_out.values()) == 2

    @pytest.mark.parametrize(
        ("settings", "listed"),
        [
            ({}, {"loja": "connected", "obra": "disconnected"}),
            ({"IGNORE_STOPPED": "true"}, {"loja": "connected"}),
            ({"IGNORE_CHANNELS": "Lo Ja"}, {"obra": "disconnected"}),
            ({"IGNORE_CHANNELS": "loja", "IGNORE_STOPPED": "true"}, {}),
        ],
    )
    def test_what_the_operator_leaves_out_is_in_no_list(
        self, settings: dict[str, str], listed: dict[str, str], tmp_path: Path
    ) -> None:
        entries = [{"name": "loja", "status": "WORKING"}, {"name": "obra", "status": "STOPPED"}]
        with RawServer(answering(entries)) as server:
            file = tmp_path / "gateways.yaml"
            one = {"name": "waha", "type": "waha", "url": server.url, "secret": SECRET}
            file.write_text(yaml.safe_dump({"gateways": [one]}))
            (access,) = read_gateways(str(file), {"MESSAGE_SOURCE": "none", **settings})
            found = make_gateway(access, observe=lambda *_: None).list_channels()
        assert {channel.id: channel.status for channel in found.channels} == listed
        assert set(found.ignored) == {"loja", "obra"} - set(listed)

    @pytest.mark.parametrize(
        ("sent", "message_id"),
        [
            ({"id": "true_55@c.us_AA"}, "true_55@c.us_AA"),
            ({"id": {"_serialized": "true_55@c.us_AA"}}, "true_55@c.us_AA"),
            ({"key": {"id": "AA"}}, f"true_{NUMBER}@c.us_AA"),
            ({"id": 7}, None),
            ({}, None),
        ],
    )
    def test_each_engine_tells_the_messages_id_in_its_way(
        self, sent: object, message_id: str | None
    ) -> None:
        with RawServer(answering(sent, status=201)) as server:
            gateway = WahaGateway(server.url, SECRET)
            channel = Channel("loja", Status.CONNECTED)
            assert gateway.send_text(channel, NUMBER, "hello") == message_id


class TestDescribedWaha(GatewayContract):
    """The adapter for described gateways, with one that Zapwatch also has an adapter for."""

    kind = TestWaha.kind
    declaration: ClassVar[Declaration | None] = DECLARED_WAHA
    statuses = {raw: TestWaha.statuses[raw] for raw in DECLARED_WAHA.statuses}  # noqa: RUF012
    heals_with = TestWaha.heals_with
