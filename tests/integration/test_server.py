"""The server of both programs, against clients that are slow, greedy or silent."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.programs import environment
from tests.support.waiting import TIMEOUT, wait_until
from zapwatch.front import Answer, Front, LoginThrottle
from zapwatch.metrics import Page

_PROGRAM = """
import sys, threading
import zapwatch.front
if len(sys.argv) > 1:
    zapwatch.front.REQUEST_SECONDS = int(sys.argv[1])
from zapwatch.config import Listen
from zapwatch.front import Front, LoginThrottle, Server
from zapwatch.server import run
hanging = threading.Event()
page = b"x" * 500_000
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/hang") or environ["QUERY_STRING"] == "name[]=hang":
        hanging.set()
        threading.Event().wait()
    body = page
    if path == "/environ":
        body = repr({key: environ[key] for key in sorted(environ) if key[0] != "w"}).encode()
    elif path == "/echo":
        body = environ["wsgi.input"].read()
    status = "404 Not Found" if path == "/nowhere" else "200 OK"
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]
class Auth:
    throttle = LoginThrottle()
    is_known = staticmethod(lambda e: e.get("HTTP_AUTHORIZATION") == "right")
    has_credentials = staticmethod(lambda e: "HTTP_AUTHORIZATION" in e)
def ping():
    if hanging.is_set():
        threading.Event().wait()
def main():
    server = Server("test", "TEST", Listen("127.0.0.1", 0))
    print(server.url, flush=True)
    server.run(Front(app, auth=Auth, urgent="/hang/urgent/", keyed="/scan/",
                     trusted_proxy="127.0.0.1", ping=ping))
    return 0
run(main)
"""
_GET = b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n"
_POST = b"POST %b HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n%b\r\n"
_CHUNKED = b"POST %b HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
_PIECE = b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"
_RIGHT = b"Authorization: right\r\n"


class _Strangers:
    def __init__(self) -> None:
        self.throttle = LoginThrottle()

    def is_known(self, _: object) -> bool:
        return False

    def has_credentials(self, _: object) -> bool:
        return True


class Served:
    """The server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self._where = ("127.0.0.1", int(process.stdout.readline().rpartition(":")[2]))

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(TIMEOUT)
        connection.connect(self._where)
        return connection

    def send(self, request: bytes) -> tuple[int, bytes]:
        with self.connect() as connection:
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read()

    def get(self, path: str) -> tuple[int, bytes]:
        return self.send(_GET % path.encode())

    def seconds_of(self, path: str) -> float:
        began = time.monotonic()
        assert self.get(path)[0] == 200
        return time.monotonic() - began

    def memory(self) -> float:
        """MiB that it has in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def _serving(*arguments: str) -> Iterator[Served]:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments],
        env=environment({}),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Served(process)
        finally:
            process.kill()


@pytest.fixture
def served() -> Iterator[Served]:
    with _serving() as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    """Serve all tests that neither end it nor measure its memory."""
    with _serving() as made:
        yield made


@pytest.fixture(scope="module")
def impatient() -> Iterator[Served]:
    """Serve with one second for a request instead of thirty."""
    with _serving("1") as made:
        yield made


def _is_cut_off(connection: socket.socket, drip: bytes = b"") -> Callable[[], bool]:
    def cut_off() -> bool:
        connection.settimeout(0.1)
        try:
            if drip:
                connection.sendall(drip)
            return connection.recv(100_000) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    return cut_off


@pytest.mark.parametrize("count", [4, 16, 256])
def test_connections_that_do_not_read_keep_nobody_out(served: Served, count: int) -> None:
    served.get("/metrics")
    before = served.memory()
    with ExitStack() as held:
        for _ in range(count):
            connection = held.enter_context(served.connect(receive_buffer=4096))
            connection.sendall(_GET % b"/metrics" * 200)
        assert served.seconds_of("/-/healthy") < 5
        assert served.seconds_of("/metrics") < 5
        # One answer of each is in memory, and not two hundred.
        assert served.memory() - before < 50 + count


def test_who_does_not_read_is_cut_off(impatient: Served) -> None:
    with impatient.connect(receive_buffer=4096) as connection:
        connection.sendall(_GET % b"/metrics" * 200)
        port = connection.getsockname()[1]

        def is_gone() -> bool:
            found = Path("/proc/net/tcp").read_text().splitlines()
            return not any(f":{port:04X} 01 " in line.split(None, 2)[2] for line in found)

        wait_until(is_gone, "the server's end of the connection to be gone")


@pytest.mark.parametrize(
    ("begun", "drip"), [(b"GET / HTTP/1.1\r\nX-Slow: ", b"x"), (b"", b"")], ids=["slow", "idle"]
)
def test_a_head_must_be_complete_in_time(impatient: Served, begun: bytes, drip: bytes) -> None:
    with impatient.connect() as slow:
        slow.sendall(begun)
        wait_until(_is_cut_off(slow, drip), "the end, though a byte may come now and then")


@pytest.mark.parametrize("head", [b"", _RIGHT], ids=["stranger", "known"])
def test_a_body_must_be_complete_in_time(impatient: Served, head: bytes) -> None:
    with impatient.connect() as slow:
        slow.sendall(_POST % (b"/echo", 1000, head) + b"x")
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


def test_slow_bodies_hold_no_thread(shared: Served) -> None:
    with ExitStack() as held:
        for number in range(100):
            slow = held.enter_context(shared.connect())
            slow.sendall(_POST % (b"/echo", 5000, _RIGHT if number % 2 else b"") + b"x")
        assert shared.send(_POST % (b"/echo", 2, _RIGHT) + b"ok") == (200, b"ok")


def test_the_body_of_a_stranger_is_not_taken(served: Served) -> None:
    before = served.memory()
    with ExitStack() as held:
        for _ in range(20):
            connection = held.enter_context(served.connect())
            connection.sendall(_POST % (b"/echo", 10_000_000, b""))
            # Answered before anything of the body was sent.
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    assert served.memory() - before < 20
    assert served.send(_POST % (b"/echo", 3, b"") + b"abc") == (200, b"abc")
    assert served.send(_CHUNKED % b"/echo" + _PIECE + b"0\r\n\r\n") == (200, b"")


@pytest.mark.parametrize(
    ("begin", "answer", "rest"),
    [
        (
            _POST % (b"/echo", 20_000, b"Authorization: wrong\r\n") + b"x",
            (401, b'{"error"'),
            b"x" * 19_999,
        ),
        # Refused when its first pieces have been read.
        (_CHUNKED % b"/nowhere" + _PIECE, (404, b"x" * 8), _PIECE + b"0\r\n\r\n"),
    ],
    ids=["length", "chunked"],
)
def test_who_goes_on_sending_a_refused_body_is_not_cut_off(
    served: Served, begin: bytes, answer: tuple[int, bytes], rest: bytes
) -> None:
    """A proxy that is reset while it sends answers 502 for itself."""
    with served.connect() as connection:
        connection.sendall(begin)
        refused = http.client.HTTPResponse(connection)
        refused.begin()
        assert (refused.status, refused.read()[:8]) == answer
        connection.sendall(rest + _GET % b"/echo")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (_POST % (b"/echo", 100, b""), 10),
        (_POST % (b"/echo", 100_000, _RIGHT), 50_000),
    ],
    ids=("small", "large"),
)
def test_a_body_that_ends_too_early_is_400(shared: Served, head: bytes, sent: int) -> None:
    with shared.connect() as connection:
        connection.sendall(head + b"x" * sent)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_no_token_is_guessed_by_whether_the_body_is_awaited(impatient: Served) -> None:
    for path in (b"/metrics", b"/-/healthy", b"/echo"):
        get = (_POST % (path, 10_000_000, _RIGHT)).replace(b"POST", b"GET")
        assert impatient.send(get)[0] == 200
    assert impatient.send(_POST % (b"/scan/key", 10_000_000, _RIGHT))[0] == 200
    wrong = b"X-Forwarded-For: 192.0.2.1\r\nAuthorization: wrong\r\n"
    guesses = [
        _POST % (path, 10_000_000, wrong)
        for path in (b"/metrics", b"/-/healthy", b"/echo", b"/hang/urgent", b"/nowhere", b"/echo")
    ]
    assert [impatient.send(guess)[0] for guess in guesses[:5]] == [401] * 5
    began = time.monotonic()
    assert impatient.send(guesses[5])[0] == 429
    assert time.monotonic() - began >= 1
    assert impatient.send(_POST % (b"/echo", 2, _RIGHT) + b"ok") == (200, b"ok")


def test_zeros_before_a_length_are_no_internal_error(impatient: Served) -> None:
    padded = b"0" * 5000
    head = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: "
    assert impatient.send(head + padded + b"2\r\n" + _RIGHT + b"\r\nok") == (200, b"ok")
    assert impatient.send(head + padded + b"\r\n" + _RIGHT + b"\r\n") == (200, b"")


def test_all_unfinished_bodies_together_are_bounded(served: Served) -> None:
    before = served.memory()
    with ExitStack() as held:
        connections = [held.enter_context(served.connect()) for _ in range(12)]
        for connection in connections:
            with suppress(OSError):
                head = _POST % (b"/echo", 10_000_000, _RIGHT)
                connection.sendall(head + b"x" * 9_999_999)
        wait_until(lambda: sum(map(_is_refused, connections)) >= 5, "some of them to be refused")
        assert served.memory() - before < 150


def _is_refused(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(100, socket.MSG_PEEK).startswith(b"HTTP/1.1 503 ")
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("path", [b"/hang", b"/metrics?name[]=hang"])
def test_health_and_metrics_are_there_while_all_threads_hang(served: Served, path: bytes) -> None:
    with ExitStack() as held:
        for _ in range(24):
            held.enter_context(served.connect()).sendall(_GET % path)
        began = time.monotonic()
        statuses = [served.get(path)[0] for path in ("/hang", "/hang/urgent/", "/echo")]
        assert statuses == [503, 503, 503]
        assert time.monotonic() - began < 10, "and not the ten seconds that a database may take"
        assert served.get("/-/healthy")[0] == 200
        assert served.get("/metrics")[0] == 200


def _app(status: str, *headers: tuple[str, str]) -> Callable[..., list[bytes]]:
    """Make an application that gives one answer to everything."""

    def app(_: object, start_response: Callable[..., object]) -> list[bytes]:
        start_response(status, list(headers))
        return []

    return app


def _scope(path: str, client: str = "127.0.0.1", **headers: str) -> SimpleNamespace:
    ends = {"client": f"{client}:1", "server": "127.0.0.1:2", "scheme": "http", "authority": None}
    head = {"method": "GET", "query_string": "", "http_version": "1.1", "headers": headers}
    return SimpleNamespace(path=path, **head, **ends)


class _Protocol:
    """Granian's side of requests without a body."""

    def __init__(self) -> None:
        self.statuses: list[int] = []

    def response_bytes(self, status: int, *_: object) -> None:
        self.statuses.append(status)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


def _ask(front: Front, *requests: str | SimpleNamespace) -> list[int]:
    """Send all requests at once, and return the answers' statuses in the order that they come."""
    protocol = _Protocol()

    async def ask() -> None:
        scopes = (_scope(one) if isinstance(one, str) else one for one in requests)
        await asyncio.gather(*(front(scope, protocol) for scope in scopes))

    # A thread of its own: a browser test may have left a loop in this one.
    with ThreadPoolExecutor(1) as other:
        other.submit(asyncio.run, ask()).result()
    return protocol.statuses


def test_a_client_that_is_to_come_later_waits_for_its_answer() -> None:
    app = _app("404 ", ("Retry-After", "60"))
    began = time.monotonic()
    assert _ask(Front(app, auth=_Strangers(), urgent="/alerts"), "/scan/wrong") == [404]
    assert time.monotonic() - began >= 1


def test_cached_metrics_need_no_thread() -> None:
    free = threading.Event()

    def render(_: object, start_response: Callable[..., object]) -> list[bytes]:
        free.wait(TIMEOUT)
        start_response("503 ", [])
        return []

    def cached(accept: str, _: str) -> Page | None:
        if accept != "cached":
            return None
        free.set()
        return Page(b"", {})

    front = Front(render, auth=_Strangers(), urgent="/alerts")
    front.cached_metrics = cached
    scrapes = [_scope("/metrics", accept=one) for one in ("first", "first", "first", "cached")]
    assert _ask(front, *scrapes) == [200, 503, 503, 503]


def test_wrong_passwords_delay_only_those_of_their_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[bytes] = []

    def check(password: bytes, _hash: bytes) -> bool:
        checked.append(password)
        return password == b"right"

    monkeypatch.setattr("bcrypt.checkpw", check)
    front = Front(_app("200 "), auth=_Strangers(), urgent="/alerts")
    front.users = {"a": b"the hash"}
    wrong, right = (
        "Basic " + base64.b64encode(f"a:{word}".encode()).decode() for word in ("wrong", "right")
    )
    attack = [_scope("/", "192.0.2.1", authorization=wrong) for _ in range(20)]
    page = [_scope("/", "192.0.2.2", authorization=right) for _ in range(3)]
    assert Counter(_ask(front, *attack, *page)) == {401: 5, 429: 15, 200: 3}
    assert checked.index(b"right") <= 2
    assert checked.count(b"right") == 1, "a browser asks for several things at once"


@pytest.mark.parametrize("path", ["/scan/the-key", "//scan/the-key"])
def test_the_key_in_an_address_stays_out_of_the_log(
    caplog: pytest.LogCaptureFixture, path: str
) -> None:
    free = threading.Event()

    def hang(*_: object) -> list[bytes]:
        free.wait()
        return []

    front = Front(hang, auth=_Strangers(), urgent="/alerts", keyed="/scan/", ping=free.wait)
    try:
        assert _ask(front, path) == [503]
    finally:
        free.set()
    assert "/scan/ is refused" in caplog.text
    assert "the-key" not in caplog.text


@pytest.mark.parametrize(
    ("status", "answers"), [("202 ", {202}), ("401 ", {401, 503}), ("200 ", {200, 503})]
)
def test_a_ping_that_is_late_refuses_nothing_while_alerts_are_stored(
    monkeypatch: pytest.MonkeyPatch, status: str, answers: set[int]
) -> None:
    monkeypatch.setattr("zapwatch.front._PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("zapwatch.front._BATCH_REQUESTS", 8)
    free = threading.Event()

    def store(environs: Sequence[object]) -> list[None]:
        time.sleep(0.1)  # so that 80 requests wait for a second
        return [None] * len(environs)

    app = _app(status)
    front = Front(app, auth=_Strangers(), urgent="/alerts", answer_together=store, ping=free.wait)
    try:
        assert set(_ask(front, *["/alerts"] * 80)) == answers
    finally:
        free.set()


def test_a_machine_that_stands_still_is_not_taken_for_a_database_that_hangs() -> None:
    stand_still = ctypes.PyDLL(None).usleep  # it keeps the GIL
    answered = threading.Event()

    def ping() -> None:
        stand_still(1_000_000)
        time.sleep(0.1)
        answered.set()

    def wait(*request: Any) -> list[bytes]:
        answered.wait()
        return _app("200 ")(*request)

    front = Front(wait, auth=_Strangers(), urgent="/alerts", ping=ping)
    assert _ask(front, "/") == [200]


def test_urgent_requests_that_wait_are_answered_together_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("zapwatch.front._BATCH_REQUESTS", 3)
    batches: list[int] = []

    def together(environs: Sequence[object]) -> list[Answer | None]:
        batches.append(len(environs))
        waiting = front._of_urgent._waiting
        wait_until(lambda: sum(batches) + waiting.qsize() == 7, "the others to wait")
        if sum(batches) == 7:
            raise ValueError("no request may fail because of this")
        return [Answer(200, [], b""), *[None] * (len(environs) - 1)]

    front = Front(_app("202 "), auth=_Strangers(), urgent="/alerts", answer_together=together)
    answers = Counter(_ask(front, *["/alerts"] * 7))
    assert sum(batches) == 7
    assert max(batches) == 3
    assert answers == {200: len(batches) - 1, 202: 8 - len(batches)}
    assert "internal error" in caplog.text


def test_headers_that_are_too_large_are_431(impatient: Served) -> None:
    for size in (40_000, 500_000):
        request = b"GET / HTTP/1.1\r\nHost: test\r\nX-Long: " + b"x" * size + b"\r\n\r\n"
        with impatient.connect() as connection:
            try:
                connection.sendall(request)
            except OSError:
                continue
            assert connection.recv(100).startswith(b"HTTP/1.1 431 ")


def test_a_proxy_that_is_trusted_says_who_its_client_is(impatient: Served) -> None:
    forged = b"X_Forwarded_For: 203.0.113.9\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n"
    _, shown = impatient.send(
        b"GET /environ?a=b HTTP/1.1\r\nHost: test\r\nX-Forwarded-Proto: https\r\n"
        + forged
        + b"\r\n"
    )
    assert b"'REMOTE_ADDR': '192.0.2.2'" in shown
    assert b"X_FORWARDED" not in shown
    assert b"'QUERY_STRING': 'a=b'" in shown


def test_an_address_in_utf_8_is_passed_on_as_wsgi_has_it(impatient: Served) -> None:
    _, shown = impatient.get("/environ?€")
    assert repr("€".encode().decode("latin-1")).encode() in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_time_though_requests_hang_and_nobody_reads(
    served: Served, number: signal.Signals
) -> None:
    with ExitStack() as held:
        for path in (b"/hang", b"/metrics"):
            connection = held.enter_context(served.connect(receive_buffer=4096))
            connection.sendall(_GET % path * 100)
        served.get("/-/healthy")
        began = time.monotonic()
        served.process.send_signal(number)
        assert served.process.wait(TIMEOUT) == 0
        assert time.monotonic() - began < 10
