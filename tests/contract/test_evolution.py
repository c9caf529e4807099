"""The adapter for Evolution API."""

from __future__ import annotations

import pytest
import requests

from tests.contract.suite import NUMBER, SECRET, GatewayContract, World
from tests.support.raw_server import RawServer, answering
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind
from zapwatch.gateways.evolution import EvolutionGateway


class TestEvolution(GatewayContract):
    kind = "evolution"
    statuses = {  # noqa: RUF012
        "open": Status.CONNECTED,
        "close": Status.DISCONNECTED,
        "connecting": Status.INITIALIZING,
    }
    qr_is_listed_as = Status.INITIALIZING
    heals_with = ["restart"]  # noqa: RUF012

    def show(self, world: World, raw: object) -> None:
        super().show(world, raw)
        world.simulator.fault("status", "not_found", channel="loja")

    @pytest.mark.parametrize("stale", ["open", "close", "connecting"])
    def test_the_processs_own_view_counts_and_not_the_databases(
        self, world: World, stale: str
    ) -> None:
        world.simulator.put_channel("loja", status_text=stale)
        assert world.channel().connected
        world.simulator.drop("loja")
        assert world.channel().status is Status.DISCONNECTED

    def test_where_the_process_tells_nothing_the_database_counts(self, world: World) -> None:
        world.simulator.fault("status", "html_502")
        assert world.channel().connected

    def test_number_and_count_of_messages_are_told(self, world: World) -> None:
        channel = world.channel()
        assert channel.number == world.simulator.number("loja")
        assert channel.number not in repr(channel)
        assert channel.message_count == 0

        world.gateway.send_text(channel, "5500000000001", "hello")
        assert world.channel().message_count == 1

    def test_the_official_api_is_listed_and_never_called(self, world: World) -> None:
        world.simulator.put_channel("oficial", integration="WHATSAPP-BUSINESS")
        channel = world.channel("oficial")
        assert (channel.connected, channel.repairable) == (True, False)
        world.simulator.clear_requests()

        with pytest.raises(GatewayError):
            world.gateway.reconnect(channel, silent=True)
        assert world.asked == []

    def test_a_closed_instance_is_never_restarted(self, world: World) -> None:
        channel = world.channel()
        world.simulator.drop("loja")

        world.gateway.reconnect(channel, silent=True)
        assert "restart" not in world.asked

    @pytest.mark.parametrize("status", [200, 201])
    def test_an_error_within_a_success_is_one(self, status: int) -> None:
        body = {"error": True, "message": "Error: the socket is gone"}
        with RawServer(answering(body, status=status)) as server:
            gateway = EvolutionGateway(server.url, SECRET)
            for call in (
                gateway.list_channels,
                lambda: gateway.qr("loja"),
                lambda: gateway.start_session("loja"),
                lambda: gateway.query(Channel("loja", Status.CONNECTED)),
            ):
                with pytest.raises(GatewayError) as caught:
                    call()
                assert caught.value.reason is GatewayErrorKind.INVALID
                assert "the socket is gone" in caught.value.detail

    @pytest.mark.parametrize(
        ("path", "body"),
        [("whatsappNumbers", {"numbers": [NUMBER]}), ("fetchProfile", {"number": NUMBER})],
    )
    def test_the_cache_calls_a_zombie_alive_and_the_query_does_not(
        self, world: World, path: str, body: dict[str, object]
    ) -> None:
        channel = world.channel()
        world.simulator.zombie("loja")
        url = f"{world.server.url}/chat/{path}/loja"
        answer = requests.post(url, json=body, headers={"apikey": SECRET}, timeout=20)
        assert answer.ok
        assert "xists" in answer.text
        world.simulator.clear_requests()

        with pytest.raises(GatewayError):
            world.gateway.query(channel)

    def test_a_code_that_is_null_is_waited_for(self, world: World) -> None:
        world.simulator.drop("loja")
        answer = world.gateway.reconnect(world.channel(), silent=False)
        assert (answer.kind, answer.image) == (QrKind.INITIALIZING, None)

    @pytest.mark.parametrize(
        "entry", [None, 7, "loja", {}, {"name": 7}, {"name": ".."}, {"instance": {"name": "a"}}]
    )
    def test_an_entry_that_is_no_instance_is_passed_over(self, entry: object) -> None:
        hostile = {"name": "loja", "_count": {"Message": True}, "ownerJid": {"a": 1}}
        with RawServer(answering([entry, hostile])) as server:
            listed = EvolutionGateway(server.url, SECRET).list_channels()

        assert listed.channels == (Channel("loja", Status.UNKNOWN),)
        assert sum(listed.left_out.values()) == 1
