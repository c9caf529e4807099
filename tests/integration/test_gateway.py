"""Calls to the gateway: what is sent, where to, and what each failure becomes."""

from __future__ import annotations

import base64
import gzip
import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.certificates import self_signed
from tests.support.gateway import Observed
from tests.support.hooks import SECRET
from tests.support.raw_server import (
    Conversation,
    RawServer,
    Talk,
    answering,
    deaf_port,
    reset,
    silent,
)
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind
from zapwatch.http import HttpAccess

_CALLS = ("list", "qr")
_GENEROUS = 10  # times as long as expected may take on a busy machine
_E = GatewayErrorKind
_LIST = {"success": True, "channels": [{"id": "loja", "status": "connected"}], "total": 1}


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    simulator.put_channel("loja")
    return simulator


def _failure(talk: Talk, operation: str = "list", **options: Any) -> GatewayError:
    """Make a call that must fail, at a server of its own."""
    with RawServer(talk) as server, Observed(server.url, **options) as observed:
        return observed.failure(operation)


class TestFailures:
    @pytest.mark.parametrize(
        ("fault", "reason", "status", "words"),
        [
            ("unauthorized", _E.UNAUTHORIZED, 401, "HTTP 401, wrong secret?: Unauthorized: wrong"),
            ("not_found", _E.HTTP, 404, "HTTP 404: Channel not found"),
            ("http_500_json", _E.HTTP, 500, "HTTP 500: Internal server error"),
            ("html_502", _E.HTML, 502, "HTTP 502 with an HTML page"),
            ("html_504", _E.HTML, 504, "HTTP 504 with an HTML page"),
            ("html_200", _E.HTML, 200, "HTTP 200 with an HTML page"),
            ("redirect", _E.HTTP, 302, "HTTP 302, a redirect: wrong base URL?"),
            ("empty_body", _E.INVALID, 200, "HTTP 200 with an empty body"),
            ("not_json", _E.INVALID, 200, "HTTP 200 with a body that is not JSON"),
            ("invalid_utf8", _E.INVALID, 200, "HTTP 200 with a body that is not JSON"),
            ("success_false_text", _E.INVALID, 200, "success=false: WPPConnect does not answer"),
            ("success_false_object", _E.INVALID, 200, "success=false: {"),
            ("success_false_bare", _E.INVALID, 200, "the gateway answered success=false"),
            ("wrong_shape_list", _E.INVALID, 200, "JSON that is not an object"),
            ("wrong_shape_number", _E.INVALID, 200, "JSON that is not an object"),
            ("wrong_shape_string", _E.INVALID, 200, "JSON that is not an object"),
            ("wrong_shape_null", _E.INVALID, 200, "a body that is not JSON"),
            ("truncated", _E.CONNECTION, None, ""),
        ],
    )
    def test_each_failure_has_its_reason_and_a_line_that_tells_it(
        self,
        simulator: Simulator,
        observed: Observed,
        fault: str,
        reason: GatewayErrorKind,
        status: int | None,
        words: str,
    ) -> None:
        for operation in _CALLS:
            simulator.fault(operation, fault)
            error = observed.failure(operation)
            assert (error.reason, error.http_status) == (reason, status)
            assert words in error.detail
        assert not simulator.requests("elsewhere"), "a redirect does not get the secret"

    def test_a_connection_cut_off_is_a_connection_failure(self) -> None:
        error = _failure(reset)
        assert (error.reason, error.http_status) == (_E.CONNECTION, None)
        assert error.detail == "Connection reset by peer"


class TestSecret:
    @pytest.mark.parametrize("status", [200, 401, 500])
    @pytest.mark.parametrize("padding", ["", "x" * 230])
    def test_a_gateway_that_repeats_the_secret_does_not_get_it_into_the_error(
        self, status: int, padding: str
    ) -> None:
        body = {"success": False, "error": f"{padding}no such key: {SECRET}"}
        for operation in _CALLS:
            assert SECRET[:8] not in str(_failure(answering(body, status=status), operation))

    @pytest.mark.parametrize("secret", [" blank-in-front\\", "two\nlines", "кириллица"])
    def test_a_secret_that_cannot_be_sent_fails_without_being_shown(self, secret: str) -> None:
        with RawServer(answering(_LIST)) as server, Observed(server.url, secret) as observed:
            error = observed.failure("list")

        assert error.reason is _E.INVALID
        assert "blank" not in str(error)
        assert server.requests == []


class TestHostileAnswers:
    @pytest.mark.parametrize("target", ["http://[", "//host:99999999/", "//ÿ/", ""])
    def test_a_redirect_to_what_is_no_address_is_a_failure_like_any_redirect(
        self, target: str
    ) -> None:
        def talk(conversation: Conversation) -> None:
            conversation.read_request()
            head = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
            conversation.send(head.encode("latin-1"))

        for operation in _CALLS:
            error = _failure(talk, operation)
            assert (error.reason, error.http_status) == (_E.HTTP, 302)

    @pytest.mark.parametrize("lengths", ["2\r\nContent-Length: 3", "2, 3"])
    def test_lengths_that_differ_are_the_answers_fault_and_not_the_secrets(
        self, lengths: str
    ) -> None:
        def talk(conversation: Conversation) -> None:
            conversation.read_request()
            conversation.send(f"HTTP/1.1 200 OK\r\nContent-Length: {lengths}\r\n\r\n{{}}".encode())

        for operation in _CALLS:
            error = _failure(talk, operation)
            assert error.reason is _E.CONNECTION
            assert error.detail == "different values of Content-Length"

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            # Control characters make no second line.
            ("one\r\ntwo\x1b[31m\u2028three\ud800", "one  two [31m three"),
            (["a", 1], '["a", 1]'),
            (42, "42"),
            ({"message": "é"}, '{"message": "é"}'),
            (True, "really"),
            (None, "really"),
        ],
    )
    def test_an_error_need_not_be_text(self, error: Any, words: str) -> None:
        body = {"success": False, "error": error, "message": "really"}
        assert words in _failure(answering(body)).detail

    @pytest.mark.parametrize("field", ["error", "status", "qr", "channels", "data"])
    @pytest.mark.parametrize("depth", [400, 900, 100_000])
    def test_json_nested_without_end_is_a_failure_and_not_a_crash(
        self, field: str, depth: int
    ) -> None:
        nested = "[" * depth + "]" * depth
        channels = f'[{{"id": "a", "status": {nested}}}]'
        body = f'{{"success": false, "channels": {channels}, "{field}": {nested}}}'
        for operation in _CALLS:
            assert _failure(answering(body.encode()), operation).reason is _E.INVALID


def _dripping_head(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    conversation.drip(itertools.repeat(b"x"), 0.05)


def _dripping_body(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    conversation.drip(itertools.repeat(b"1\r\n \r\n"), 0.05)


def _dripping_gzip(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10]
    )
    # Empty deflate blocks: they never become a byte of the body.
    conversation.drip(itertools.repeat(b"\x00\x00\x00\xff\xff"), 0.05)


def _late_body_that_stops(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    conversation.drip(itertools.chain([b" "] * 8, itertools.repeat(b"")), 0.05)


class TestRequest:
    def test_any_id_arrives_whole_in_the_path(
        self, simulator: Simulator, observed: Observed
    ) -> None:
        ids = ["Pixel12 Digital", "a/b", "a+b", "a%2Fb", "São João", "客服", "a/../b", "..a"]
        ids += ["?a=1", "#a", "~;&=:@"]
        for channel in ids:
            simulator.put_channel(channel, session="not_started")
            observed.client.start_session(channel)
            observed.client.qr(channel)
            observed.client.delete(channel)
            observed.client.create(channel)

        called = [(call["operation"], call["channel"]) for call in simulator.requests()]
        operations = ("start_session", "qr", "delete", "create")
        assert called == [(one, channel) for channel in ids for one in operations]
        assert [operation for operation, _ in observed.outcomes] == [o for o, _ in called]

    def test_a_space_is_sent_as_percent_20_and_no_slash_twice(self) -> None:
        with RawServer(answering({"success": True})) as server:
            with Observed(server.url + "/") as observed:
                observed.client.qr("Pixel12 Digital/+")

            sent = b"GET /api/channels/Pixel12%20Digital%2F%2B/qr HTTP"
            assert server.requests[0].startswith(sent)

    def test_each_request_carries_the_secret_an_id_and_the_wish_for_json(self) -> None:
        with RawServer(answering({"success": False})) as server, Observed(server.url) as observed:
            first, second = observed.failure("list"), observed.failure("list")

            heads = [head.decode().lower() for head in server.requests]
        assert all(f"x-gateway-secret: {SECRET}\r\n" in head for head in heads)
        assert all("accept: application/json\r\n" in head for head in heads)
        assert all("user-agent: zapwatch/" in head for head in heads)
        assert f"x-request-id: {first.request_id}\r\n" in heads[0]
        assert f"x-request-id: {second.request_id}\r\n" in heads[1]
        assert first.request_id != second.request_id

    def test_cookies_are_not_sent_back(self) -> None:
        talk = answering(_LIST, headers="Set-Cookie: session=1; Path=/\r\n")
        with RawServer(talk) as server, Observed(server.url) as observed:
            observed.client.list_channels()
            observed.client.list_channels()

            assert all(b"ookie" not in head for head in server.requests)


class TestTimeouts:
    @pytest.mark.parametrize(
        "talk", [silent, _dripping_head, _dripping_body, _dripping_gzip, _late_body_that_stops]
    )
    def test_no_answer_takes_longer_than_the_time_out(self, talk: Any) -> None:
        with RawServer(talk) as server, Observed(server.url, list_timeout=0.5) as observed:
            error = observed.failure("list")

        assert (error.reason, error.detail) == (_E.TIMEOUT, "no answer within 0.5 s")
        ((_, seconds, _),) = observed.calls
        assert 0.4 < seconds < 0.5 * _GENEROUS

    def test_the_list_and_the_qr_call_have_time_outs_of_their_own(
        self, simulator: Simulator
    ) -> None:
        simulator.fault("list", "slow", seconds=0.6)
        simulator.fault("qr", "slow", seconds=0.6)
        with Observed(simulator.url, list_timeout=20, qr_timeout=0.2) as observed:
            observed.call("list")
            assert observed.failure("qr").reason is _E.TIMEOUT

    def test_an_answer_that_is_slow_but_in_time_is_taken_whole(self) -> None:
        def talk(conversation: Conversation) -> None:
            conversation.read_request()
            conversation.send(b"HTTP/1.1 200 OK\r\n\r\n")
            conversation.drip([b'{"channels": [{"id"', b': "loja"', b"}]}"], 0.1)

        with RawServer(talk) as server, Observed(server.url, list_timeout=20) as observed:
            assert [c.id for c in observed.client.list_channels().channels] == ["loja"]


class TestLargeAnswers:
    @pytest.mark.parametrize("head", [b"200 OK", b"302 Found\r\nLocation: /elsewhere"])
    def test_an_answer_too_large_for_the_memory_is_not_read_to_its_end(self, head: bytes) -> None:
        sent = 0

        def talk(conversation: Conversation) -> None:
            nonlocal sent
            conversation.read_request()
            conversation.send(b"HTTP/1.1 %b\r\n\r\n" % head)
            for _ in range(1000):
                conversation.send(b" " * 1_000_000)
                sent += 1

        error = _failure(talk)
        assert error.reason is _E.INVALID
        assert "more than 33554432 bytes" in error.detail
        assert sent < 100

    @pytest.mark.parametrize(
        ("status", "target"), [(200, ""), (301, "Location: http://elsewhere.invalid/\r\n")]
    )
    def test_an_answer_that_unpacks_to_more_than_fits_the_memory_is_given_up(
        self, status: int, target: str
    ) -> None:
        headers = f"Content-Encoding: gzip\r\n{target}"
        bomb = answering(gzip.compress(b" " * 40_000_000), status=status, headers=headers)
        assert "more than 33554432 bytes" in _failure(bomb).detail

    def test_a_large_answer_is_read(self, simulator: Simulator, observed: Observed) -> None:
        simulator.fault("qr", "huge", megabytes=16)

        assert observed.client.qr("loja").kind is QrKind.ACCEPTED

    def test_a_compressed_answer_is_unpacked_and_a_broken_one_is_invalid(self) -> None:
        packed = gzip.compress(b'{"channels": [{"id": "loja"}]}')
        header = "Content-Encoding: gzip\r\n"
        talk = answering(packed, headers=header)
        with RawServer(talk) as server, Observed(server.url) as observed:
            assert observed.client.list_channels().channels[0].id == "loja"
        assert _failure(answering(b"not packed", headers=header)).reason is _E.INVALID


class TestConnection:
    def test_a_refused_connection_is_told_in_the_systems_words(self) -> None:
        # Nothing listens at port 1.
        with Observed("http://127.0.0.1:1") as observed:
            error = observed.failure("list")

        assert (error.reason, error.detail) == (_E.CONNECTION, "Connection refused")
        assert error.http_status is None

    def test_a_host_that_does_not_exist_is_a_connection_failure(self) -> None:
        with Observed("http://gateway.invalid:8443", list_timeout=20) as observed:
            assert observed.failure("list").reason is _E.CONNECTION

    def test_what_is_no_http_is_a_connection_failure(self) -> None:
        def talk(conversation: Conversation) -> None:
            conversation.read_request()
            conversation.send(b"SSH-2.0-OpenSSH_9.2\r\n")

        assert _failure(talk).reason is _E.CONNECTION

    def test_a_connection_that_is_never_accepted_says_that_it_was_not_made(self) -> None:
        with deaf_port() as port, Observed(f"http://127.0.0.1:{port}", list_timeout=0.3) as client:
            error = client.failure("list")

        assert (error.reason, error.detail) == (_E.TIMEOUT, "no connection within 0.3 s")


class TestTls:
    def test_only_a_certificate_that_the_settings_name_is_trusted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate, key = self_signed(tmp_path)
        # What the environment says does not count: the settings are all in one place.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with SimulatorServer(SECRET, tls=(certificate, key)) as server:
            simulator = Simulator(server.url, verify=str(certificate))
            simulator.put_channel("loja")
            with Observed(server.url) as observed:
                error = observed.failure("list")
            assert (error.reason, simulator.requests()) == (_E.TLS, [])
            assert "self-signed certificate" in error.detail
            with Observed(server.url, access=HttpAccess(str(certificate))) as observed:
                assert observed.client.list_channels().channels
            with Observed(server.url.replace("https:", "http:")) as observed:
                assert observed.failure("list").reason is _E.CONNECTION

    def test_https_to_a_server_without_tls_is_a_tls_failure(self, simulator: Simulator) -> None:
        with Observed(simulator.url.replace("http:", "https:")) as observed:
            assert observed.failure("list").reason is _E.TLS

    def test_a_tls_handshake_that_hangs_is_given_up(self) -> None:
        with RawServer(silent) as server:
            url = server.url.replace("http:", "https:")
            with Observed(url, list_timeout=0.5) as observed:
                assert observed.failure("list").reason is _E.TIMEOUT


class TestSession:
    def test_a_proxy_or_password_that_the_environment_names_gets_nothing(
        self, monkeypatch: pytest.MonkeyPatch, simulator: Simulator, tmp_path: Path
    ) -> None:
        (tmp_path / "netrc").write_text(
            "machine 127.0.0.1 login somebody password not-a-real-one\n"
        )
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        with RawServer(answering(_LIST)) as proxy, RawServer(answering(_LIST)) as gateway:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url)
            with Observed(gateway.url) as observed:
                assert observed.client.list_channels().channels

            assert proxy.requests == []
            assert b"authorization" not in gateway.requests[0].lower()

    def test_a_proxy_before_it_gets_user_and_password_and_no_message_repeats_them(self) -> None:
        user, password = "zapwatch", "not-a-réal-password"
        login = base64.b64encode(f"{user}:{password}".encode())
        with RawServer(answering({"message": f"no {password}"}, status=401)) as gateway:
            with Observed(gateway.url, access=HttpAccess(None, user, password)) as observed:
                error = observed.failure("list")
            assert b"Authorization: Basic " + login in gateway.requests[0]
        assert error.reason is _E.UNAUTHORIZED
        assert "no [secret]" in error.detail

    def test_a_gateway_that_closes_connections_unannounced_is_called_all_the_same(self) -> None:
        def once(conversation: Conversation) -> None:
            conversation.read_request()
            body = b'{"channels": [{"id": "loja"}]}'
            conversation.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            # Closed in the very moment in which the next request comes.
            conversation.read_request()

        with RawServer(once) as server, Observed(server.url) as observed:
            for _ in range(3):
                assert observed.client.list_channels().channels

        assert [reason for _, reason in observed.outcomes] == [None, None, None]

    def test_the_duration_is_told_of_good_and_bad_calls(self, simulator: Simulator) -> None:
        simulator.fault("list", "slow", seconds=0.3)
        before = time.monotonic()
        with Observed(simulator.url, list_timeout=20) as observed:
            observed.call("list")
            simulator.fault("list", "html_504", seconds=0.3)
            observed.failure("list")

        elapsed = time.monotonic() - before
        assert all(0.3 <= seconds <= elapsed for _, seconds, _ in observed.calls)
