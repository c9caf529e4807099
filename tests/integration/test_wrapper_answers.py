"""What the wrapper's answers mean: every shape of a list and of a QR code."""

from __future__ import annotations

import base64
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from demo.simulator.client import Simulator
from demo.simulator.knobs import QR_FIELDS, QrForm
from tests.support.gateway import Observed
from tests.support.raw_server import RawServer, answering
from zapwatch.gateways import base
from zapwatch.gateways.base import (
    ChannelList,
    Failure,
    GatewayErrorKind,
    GatewayResponse,
    LeftOut,
    Operation,
    QrAnswer,
    QrKind,
)
from zapwatch.gateways.wrapper import parse_list, parse_qr

_PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()


def _listed(body: Any) -> ChannelList:
    with RawServer(answering(body)) as server, Observed(server.url) as observed:
        return observed.client.list_channels()


def _asked(body: Any, status: int = 200) -> QrAnswer:
    with RawServer(answering(body, status=status)) as server, Observed(server.url) as observed:
        answer = observed.client.qr("loja")
        assert observed.outcomes == [(Operation.QR, None)]
        return answer


class TestList:
    def test_the_list_may_sit_under_data(self, simulator: Simulator, observed: Observed) -> None:
        simulator.put_channel("loja")
        simulator.fault("list", "data_channels")

        assert [c.id for c in observed.client.list_channels().channels] == ["loja"]

    @pytest.mark.parametrize(
        ("fault", "left_out"), [("entries_without_id", 4), ("entries_not_objects", 5)]
    )
    def test_entries_that_are_no_channels_are_counted_and_passed_over(
        self, simulator: Simulator, observed: Observed, fault: str, left_out: int
    ) -> None:
        simulator.put_channel("loja")
        simulator.put_channel("obra", status="disconnected")
        simulator.fault("list", fault)

        listed = observed.client.list_channels()

        assert [c.id for c in listed.channels] == ["loja", "obra"]
        assert listed.left_out == {LeftOut.UNUSABLE_ID: left_out}

    @pytest.mark.parametrize(
        ("entry", "channel_id"),
        [
            ({"id": "a", "name": "b", "channel_id": "c"}, "a"),
            ({"name": "b", "channel_id": "c"}, "b"),
            ({"channel_id": "c"}, "c"),
            ({"id": "", "name": "b"}, "b"),
            ({"id": "  ", "name": None, "channel_id": "c"}, "c"),
            ({"id": None, "name": "b"}, "b"),
            ({"id": ["a"], "name": "b"}, "b"),
            ({"id": True, "name": "b"}, "b"),
            ({"id": 5, "name": "b"}, "5"),
            ({"id": 0}, "0"),
            ({"id": " Pixel12 Digital "}, " Pixel12 Digital "),
        ],
    )
    def test_the_id_is_the_first_of_three_fields_that_holds_one(
        self, entry: dict[str, Any], channel_id: str
    ) -> None:
        assert [c.id for c in _listed({"channels": [entry]}).channels] == [channel_id]

    @pytest.mark.parametrize("bad", ["..", "a\nb", "x" * 300, "x" * 1_000_000, "\ud800", " "])
    def test_an_id_that_is_unusable_is_passed_over(self, bad: str) -> None:
        listed = _listed({"channels": [{"id": bad, "status": "connected"}, {"id": "loja"}]})

        assert [c.id for c in listed.channels] == ["loja"]
        assert listed.left_out == {LeftOut.UNUSABLE_ID: 1}

    def test_entries_are_one_channel_if_their_names_are_the_same_in_one_unicode_form(self) -> None:
        ids = ("Loja 1", "loja1", "loja1", "S\u00e3o", "Sa\u0303o", "sa\u0303o", "obra", "obra ")

        listed = _listed({"channels": [{"id": one, "status": "connected"} for one in ids]})

        assert [(c.id, c.has_twin) for c in listed.channels] == [
            ("Loja 1", True),
            ("loja1", True),
            ("S\u00e3o", True),
            ("sa\u0303o", True),
            ("obra", False),
        ]
        assert listed.left_out == {LeftOut.DUPLICATE: 3}

    def test_of_too_many_channels_it_is_always_the_same_that_are_watched(
        self,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(base, "MAX_CHANNELS", 3)
        ids = ["b", "e", "d", "a", "c", "a "]

        for entries in (ids, ids[::-1]):
            listed = _listed({"channels": [{"id": channel} for channel in entries]})

            assert {channel.key for channel in listed.channels} == {"a", "b", "c"}
            assert listed.left_out == {LeftOut.DUPLICATE: 1, LeftOut.OVER_LIMIT: 2}

    @pytest.mark.parametrize(
        "body",
        [
            {"success": True},
            {"success": True, "channels": None},
            {"success": True, "channels": {"id": "loja"}},
            {"success": True, "channels": "loja"},
            {"success": True, "data": [{"id": "loja"}]},
            {"success": True, "data": {"channels": 1}},
            {"success": True, "channels": [{}, None]},
            {"success": False, "channels": [{"id": "loja"}]},
        ],
    )
    def test_what_is_no_list_of_channels_is_invalid(self, body: Any) -> None:
        with RawServer(answering(body)) as server, Observed(server.url) as observed:
            error = observed.failure("list")

        assert (error.reason, error.http_status) == (GatewayErrorKind.INVALID, 200)

    @pytest.mark.parametrize("parse", [parse_list, parse_qr])
    def test_an_error_nested_as_deeply_as_can_just_be_read_does_not_crash(
        self,
        parse: Callable[[GatewayResponse], object],
    ) -> None:
        limit = sys.getrecursionlimit()
        for depth in range(limit - 300, limit + 1, 5):
            nested = '{"a":' * depth + "1" + "}" * depth
            raw = f'{{"success": false, "error": {nested}}}'.encode()
            with pytest.raises(Failure):
                parse(GatewayResponse(200, "application/json", raw))

    def test_a_byte_order_mark_in_front_of_json_does_no_harm(self) -> None:
        assert _listed(b'\xef\xbb\xbf{"channels": [{"id": "loja"}]}').channels[0].id == "loja"


class TestQrCode:
    def test_a_qr_code_is_found_in_every_field_and_form(
        self, simulator: Simulator, observed: Observed
    ) -> None:
        forms: dict[QrForm, str] = {
            "base64": "iVBORw0KGgo",
            "data_url": "data:image/png;base64,",
            "http_url": "http://",
        }
        for field, (form, begin) in itertools.product(QR_FIELDS, forms.items()):
            simulator.put_channel("loja", session="unpaired", qr_field=field, qr_form=form)
            answer = observed.client.qr("loja")
            assert answer.kind is QrKind.QR, (field, form)
            assert answer.image is not None
            assert answer.image.startswith(begin), (field, form)

    def test_a_qr_code_is_found_in_other_fields_of_nested_objects_too(self) -> None:
        fields = ("qrcode", "base64Image", "image", "qr_base64", "qrcode_base64")
        for outer, inner in itertools.product(("data", "result"), fields):
            body = json.dumps({"success": True, outer: {inner: _PNG}}).encode()
            found = parse_qr(GatewayResponse(200, "application/json", body))
            assert found == QrAnswer(QrKind.QR, _PNG), (outer, inner)

    def test_a_qr_code_beside_fields_of_other_kinds_is_found(self) -> None:
        body = {
            "qr": None,
            "base64": "",
            "image": 7,
            "qrcode": "loading",
            "data": {"qr": f" {_PNG}\n"},
        }

        assert _asked(body) == QrAnswer(QrKind.QR, _PNG)

    def test_a_qr_code_counts_more_than_a_status_or_a_message(self) -> None:
        body = {
            "success": True,
            "qr": _PNG,
            "status": "CONNECTED",
            "message": "or call start-session",
        }

        assert _asked(body).kind is QrKind.QR

    def test_the_image_stays_out_of_repr(self) -> None:
        assert _PNG[:20] not in repr(_asked({"success": True, "qr": _PNG}))


class TestSessionStates:
    @pytest.mark.parametrize(
        "message", ["connected, no start-session is needed", "Session not started"]
    )
    def test_a_success_is_not_taken_for_a_session_that_was_not_started(self, message: str) -> None:
        body = {"success": True, "qr": None, "status": "CONNECTED", "message": message}

        assert _asked(body).kind is QrKind.ACCEPTED

    def test_a_starting_browser_is_initializing(
        self, simulator: Simulator, observed: Observed
    ) -> None:
        simulator.put_channel("loja", status="disconnected", initializing_answers=2)

        kinds = [observed.client.qr("loja").kind for _ in range(3)]

        assert kinds == [QrKind.INITIALIZING, QrKind.INITIALIZING, QrKind.ACCEPTED]

    @pytest.mark.parametrize(
        "body", [{"status": " Initializing"}, {"success": True, "data": {"status": "INITIALIZING"}}]
    )
    def test_initializing_is_known_in_any_letter_case_and_under_data(self, body: Any) -> None:
        assert _asked(body).kind is QrKind.INITIALIZING

    @pytest.mark.parametrize("http", [200, 500])
    def test_a_session_that_was_not_started_is_known_with_either_http_status(
        self, simulator: Simulator, observed: Observed, http: Any
    ) -> None:
        simulator.put_channel("loja", session="not_started", not_started_http=http)

        assert observed.client.qr("loja").kind is QrKind.NOT_STARTED
        observed.client.start_session("loja")
        assert observed.client.qr("loja").kind is QrKind.ACCEPTED
        assert observed.outcomes == [
            (Operation.QR, None),
            (Operation.START_SESSION, None),
            (Operation.QR, None),
        ]

    @pytest.mark.parametrize(
        "body",
        [
            {"success": False, "error": "SESSION NOT STARTED."},
            {"success": False, "error": {"code": 1, "message": "Session not started"}},
            {"success": False, "error": ["Use POST /api/channels/loja/start-session"]},
            {"success": False, "error": True, "message": "Session not started"},
            {"success": False, "error": "x" * 500 + " Session not started"},
            {"error": "Session not started"},
        ],
    )
    def test_a_session_that_was_not_started_is_known_by_its_words_wherever_they_are(
        self, body: Any
    ) -> None:
        assert _asked(body, 500).kind is QrKind.NOT_STARTED

    @pytest.mark.parametrize(
        ("status", "words"),
        [(403, "a firewall or proxy in between refused"), (502, "its gateway does not")],
    )
    def test_the_page_of_a_firewall_or_proxy_is_told_from_a_wrong_secret(
        self, status: int, words: str
    ) -> None:
        page = answering(b"<html>Please wait</html>", status=status, content_type="text/html")
        with RawServer(page) as server, Observed(server.url) as observed:
            error = observed.failure("list")
            assert error.reason is GatewayErrorKind.HTML
            assert words in error.detail

    @pytest.mark.parametrize("status", [401, 403, 404, 502, 504])
    def test_another_http_error_is_not_taken_for_a_session_that_was_not_started(
        self, status: int
    ) -> None:
        body = {"success": False, "error": "Cannot GET /start-session: Session not started"}
        with RawServer(answering(body, status=status)) as server, Observed(server.url) as observed:
            assert observed.failure("qr").http_status == status

    def test_an_older_wrappers_invalid_qr_code_means_connected(
        self, simulator: Simulator, observed: Observed
    ) -> None:
        simulator.put_channel("loja", zombie=True, zombie_answer="http_500")

        assert observed.client.qr("loja") == QrAnswer(QrKind.ACCEPTED)

    def test_an_invalid_qr_code_with_http_200_is_a_failure(self) -> None:
        body = {"success": False, "error": "Invalid QR code response from server"}
        with RawServer(answering(body)) as server, Observed(server.url) as observed:
            assert observed.failure("qr").reason is GatewayErrorKind.INVALID


class TestRestart:
    def test_a_session_is_thrown_away_and_made_anew(
        self, simulator: Simulator, observed: Observed
    ) -> None:
        simulator.put_channel("Pixel12 Digital")

        observed.client.delete("Pixel12 Digital")
        assert simulator.channel("Pixel12 Digital") is None
        observed.client.create("Pixel12 Digital")

        assert observed.outcomes == [(Operation.DELETE, None), (Operation.CREATE, None)]
        channel = simulator.channel("Pixel12 Digital")
        assert channel is not None
        assert channel["session"] == "unpaired"

    def test_a_start_that_the_gateway_refuses_is_a_failure(
        self, simulator: Simulator, observed: Observed
    ) -> None:
        simulator.put_channel("loja")
        simulator.fault("start_session", "success_false_text")

        assert observed.failure("start_session").reason is GatewayErrorKind.INVALID
