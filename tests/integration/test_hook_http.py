"""The hook over HTTP, as a process and as an application."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Gauge
from werkzeug.test import create_environ, run_wsgi_app

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from reconnect_hook.app import ANSWER_TOGETHER
from reconnect_hook.history import Present, RepairHistory
from reconnect_hook.metrics import LatestPages
from reconnect_hook.reconciler import Scheduler
from tests.support.alerts import alert, payload
from tests.support.hooks import SECRET, TOKEN, hook_settings, log_lines, state
from tests.support.mariadb import MariaDb
from tests.support.programs import Program, run_here
from tests.support.site import BEARER, Site
from tests.support.states import locked
from tests.support.waiting import TIMEOUT, wait_until
from zapwatch.front import MAX_REQUEST_BYTES

_NOTHING = {"accepted": 0, "coalesced": 0, "cooldown": 0, "ignored": 0}


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    simulator.put_channel("loja", reconnect_seconds=0)
    simulator.put_channel("Pixel12 Digital", reconnect_seconds=0)
    return simulator


# The application, in this process: what it answers.


class App(Site):
    """The hook's application, whose workers were not started."""

    def __init__(self, url: str, **more: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Scheduler, "start", lambda _: None)
            super().__init__(url, **more)

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        answer = self.http.post("/alerts", data=body, headers=headers or BEARER)
        return answer.status_code, answer.get_json()

    def alerts(self, status: str, result: str) -> float | None:
        name = "whatsapp_reconnect_alerts_total"
        return self.metrics.registry.get_sample_value(name, {"status": status, "result": result})


@pytest.fixture
def app(simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zapwatch.db._TIMEOUT", 0.05)
    with contextlib.closing(App(simulator.url, RECONNECT_COOLDOWN_SECONDS="300")) as made:
        yield made


def test_what_was_accepted_is_stored_before_it_is_answered(app: App, tmp_path: Path) -> None:
    body = payload(
        alert("loja"), alert("loja"), alert("b"), alert(gateway="other"), alert("c", "?")
    )
    assert app.post(body) == (202, {**_NOTHING, "accepted": 2, "coalesced": 1, "ignored": 2})
    rows = state(tmp_path, "SELECT channel, cause FROM channel ORDER BY key")
    assert [tuple(row) for row in rows] == [("b", "disconnected"), ("loja", "disconnected")]
    assert app.post(body) == (202, {**_NOTHING, "coalesced": 3, "ignored": 2})
    assert app.alerts("firing", "accepted") == 2
    assert app.alerts("firing", "coalesced") == 4
    assert app.alerts("firing", "ignored") == 2
    assert app.alerts("invalid", "ignored") == 2


def test_requests_that_wait_are_stored_together_and_each_gets_its_own_answer(
    app: App, tmp_path: Path
) -> None:
    def other(name: str) -> bytes:
        return payload(alert(name))

    origin = {"Origin": "https://elsewhere.example.com"}
    cases: list[tuple[int, bytes, dict[str, str]]] = [
        (202, other("loja"), BEARER),
        (401, other("stranger"), {}),
        *[(401, other("stranger"), {"Authorization": "Bearer wrong"})] * 5,
        (429, other("stranger"), {"Authorization": "Bearer wrong"}),
        (403, other("stranger"), {**BEARER, **origin}),
        (400, b"{", BEARER),
        (413, b" " * (MAX_REQUEST_BYTES + 1), BEARER),
        (202, payload(alert("loja"), alert("b"), alert(gateway="other")), BEARER),
    ]
    environs = [
        create_environ("/alerts", method="POST", data=body, headers=headers)
        for _, body, headers in cases
    ]
    answers = app.app.extensions[ANSWER_TOGETHER](environs)
    assert [answer is not None for answer in answers] == [status == 202 for status, _, _ in cases]
    shown = [
        int(run_wsgi_app(app.app, environ)[1][:3])
        for environ, answer in zip(environs, answers, strict=True)
        if answer is None
    ]
    assert shown == [status for status, _, _ in cases if status != 202]
    counts = {**_NOTHING, "accepted": 1, "coalesced": 1, "ignored": 1}
    assert json.loads(answers[-1].body) == counts
    # The answer is the view's.
    view = app.http.post("/alerts", data=other("loja"), headers=BEARER)
    assert answers[-1].status == view.status_code
    lengths = {"Content-Length"}
    assert {one for one in answers[-1].headers if one[0] not in lengths} == {
        one for one in view.headers if one[0] not in lengths
    }
    rows = state(tmp_path, "SELECT channel FROM channel ORDER BY key")
    assert [tuple(row) for row in rows] == [("b",), ("loja",)]
    assert app.alerts("firing", "accepted") == 2


def test_the_cooldown_is_answered_and_counted(app: App, tmp_path: Path) -> None:
    state(
        tmp_path,
        "INSERT INTO channel (gateway, key, channel, listed, attempts, called_at)"
        " VALUES ('wpp', 'loja', 'loja', 1, 1, strftime('%s', 'now'))",
    )
    assert app.post(payload(alert())) == (202, {**_NOTHING, "cooldown": 1})
    assert app.alerts("firing", "cooldown") == 1
    assert state(tmp_path, "SELECT next_at > since, intent FROM channel") == [(1, 3)], "it is kept"


def test_what_is_no_payload_is_400(app: App) -> None:
    for body in (b"", b"{", b"[]", b'{"version": "3", "alerts": []}', b"\xff"):
        status, answer = app.post(body)
        assert status == 400
        assert answer.keys() == {"error"}


def test_without_the_token_it_is_401_whatever_the_body(app: App) -> None:
    values = (
        *("", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"),
        *(f"Basic {TOKEN}", TOKEN, "Bearer \xe9\xff", "Basic \xe9\xff"),
    )
    senders = [{}, {"X-Gateway-Secret": SECRET}, *({"Authorization": one} for one in values)]
    for number, headers in enumerate(senders):
        place = {"REMOTE_ADDR": f"203.0.113.{number}"}
        for path in ("/alerts", "/notifications"):
            for body in (payload(alert()), b"{"):
                answer = app.http.post(path, data=body, headers=headers, environ_base=place)
                assert answer.status_code == 401, headers
                assert TOKEN not in answer.text
    assert state(Path.cwd(), "SELECT key FROM channel") == []
    assert app.alerts("firing", "accepted") == 0


def test_a_state_that_cannot_be_written_is_503_and_nothing_is_lost(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    body = payload(alert())
    with locked(app.state_url):
        status, answer = app.post(body)
        assert status == 503
        assert "state" in answer["error"]
        assert "locked" in caplog.text
        assert app.http.get("/metrics").status_code == 200
    assert app.alerts("firing", "accepted") == 0
    assert app.post(body) == (202, {**_NOTHING, "accepted": 1})


def test_it_is_not_ready_while_the_state_cannot_be_read(app: App) -> None:
    assert app.http.get("/-/ready").status_code == 200
    state(Path.cwd(), "ALTER TABLE channel RENAME TO away")
    assert app.http.get("/-/ready").status_code == 503
    assert app.http.get("/-/healthy").status_code == 200
    page = app.http.get("/metrics")
    assert page.status_code == 200
    assert "whatsapp_reconnect_alerts_total" in page.text
    assert "whatsapp_reconnect_queue_length" not in page.text, "unknown is not 0"
    state(Path.cwd(), "ALTER TABLE away RENAME TO channel")
    assert app.http.get("/-/ready").status_code == 200
    assert "whatsapp_reconnect_queue_length 0.0" in app.http.get("/metrics").text


def test_a_state_that_hangs_does_not_take_the_metrics_with_it(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = threading.Event()
    readings = []

    def hang(_: object) -> None:
        readings.append(threading.current_thread())
        going_on.wait(TIMEOUT)

    monkeypatch.setattr(RepairHistory, "present", hang)
    try:
        for _ in range(3):
            began = time.monotonic()
            page = app.http.get("/metrics")
            assert time.monotonic() - began < 10
            assert page.status_code == 200
            assert "whatsapp_reconnect_alerts_total" in page.text
            assert "whatsapp_reconnect_queue_length" not in page.text
        assert len(readings) == 1, "however many scrapes there are"
    finally:
        going_on.set()


def test_a_state_that_is_read_slowly_is_the_one_of_the_scrape_before(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = threading.Event()
    present = RepairHistory.present

    def wait(history: RepairHistory) -> Present:
        going_on.wait(TIMEOUT)
        return present(history)

    monkeypatch.setattr(RepairHistory, "present", wait)
    try:
        assert "whatsapp_reconnect_queue_length" not in app.http.get("/metrics").text
        going_on.set()
        wait_until(
            lambda: "whatsapp_reconnect_queue_length" in app.http.get("/metrics").text, "the state"
        )
        going_on.clear()
        page = app.http.get("/metrics").text
        assert "whatsapp_reconnect_queue_length" in page, "the last one that was read"
    finally:
        going_on.set()


def test_a_page_that_takes_long_to_render_is_the_one_of_the_scrape_before() -> None:
    going_on = threading.Event()
    values = iter([1.0])
    registry = CollectorRegistry()

    def slow() -> float:
        value = next(values, None)
        if value is None:
            going_on.wait(TIMEOUT)
            return 2.0
        return value

    Gauge("value", "A value.", registry=registry).set_function(slow)
    pages = LatestPages(registry, seconds=0.05)
    assert b"value 1.0" in pages.get("", "").body
    assert b"value 1.0" in pages.get("", "").body, "though it is rendered anew"
    going_on.set()
    wait_until(lambda: b"value 2.0" in pages.get("", "").body, "the new page")


def test_a_hook_whose_threads_have_died_is_not_healthy(app: App, dead_threads: list[str]) -> None:
    assert app.http.get("/-/healthy").status_code == 200
    dead_threads.append("reconciler")
    answer = app.http.get("/-/healthy")
    assert (answer.status_code, answer.text) == (503, "No longer at work: reconciler.\n")


def test_metrics_come_in_both_formats_and_compressed(app: App) -> None:
    answer = app.http.get(
        "/metrics",
        headers={"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"},
    )
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert gzip.decompress(answer.data).endswith(b"# EOF\n")


def test_all_series_are_there_from_the_beginning(app: App) -> None:
    page = app.http.get("/metrics").text
    for line in (
        'whatsapp_reconnect_alerts_total{result="cooldown",status="resolved"} 0.0',
        'whatsapp_reconnect_duration_seconds_count{outcome="still_disconnected"} 0.0',
        "whatsapp_reconnect_queue_length 0.0",
        "whatsapp_reconnect_in_flight 0.0",
    ):
        assert f"\n{line}\n" in page
    assert re.search(r'errors_total\{gateway="wpp",operation="qr",reason="tls"\} 0.0', page)


def test_people_are_told_in_one_line_each(app: App, caplog: pytest.LogCaptureFixture) -> None:
    hostile = alert("loja")
    hostile["annotations"] = {"summary": "two\nlines\x1b[31m" + "x" * 1000}
    body = payload(alert("loja"), hostile, alert("loja", "resolved"))
    answer = app.http.post("/notifications", data=body, headers=BEARER)
    assert answer.status_code == 200
    told = [record for record in caplog.records if record.name == "people"]
    assert [record.levelname for record in told][:2] == ["WARNING", "WARNING"]
    assert told[0].getMessage() == "firing WhatsAppChannelDisconnected: loja is not connected"
    assert all(record.getMessage().isprintable() for record in told)
    assert app.http.post("/notifications", data=b"[]", headers=BEARER).status_code == 400


# The process: what it does.


def _send(program: Program, data: Any) -> requests.Response:
    return requests.post(f"{program.url}/alerts", data, headers=BEARER, timeout=TIMEOUT)


def _post(program: Program, *alerts: Any) -> dict[str, int]:
    answer = _send(program, payload(*alerts))
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def _attempts(program: Program, **labels: str) -> dict[tuple[str, ...], float]:
    return program.metrics().all("whatsapp_reconnect_attempts_total", gateway="wpp", **labels)


def _wait_for_lines(directory: Path, count: int) -> list[str]:
    lines = wait_until(
        lambda: found if len(found := log_lines(directory)) >= count else None,
        f"{count} lines in the log",
    )
    assert lines is not None
    assert len(lines) == count, lines
    return lines


_HOSTILE = [
    *map(alert, ("stranger", "../../etc/passwd", "..%2F..%2Fsecret", "loja/qr", "loja%2Fqr")),
    *map(alert, ("loja?x=1#y", 'x"} 1\nwhatsapp_up 1', "two\nlines outcome=reconnected")),
    *map(alert, ('spaces and "quotes" outcome=reconnected', "\u2028line\u2029ends")),
    *map(alert, ("x" * 1_000_000, "x" * 255, 7, ["loja"], {"loja": 1}, None, "")),
    alert("Pixel12 Digital", gateway="other"),
    alert("Pixel12 Digital", remediation="people"),
    alert("Pixel12 Digital", alertname={"a": 1}, remediation=None),
    None,
    "alert",
    {"status": "firing", "labels": "loja"},
]


def test_hostile_alerts_are_never_called_and_make_no_series(
    serve: Callable[..., Program], simulator: Simulator, tmp_path: Path
) -> None:
    simulator.drop("loja")
    program = serve()
    counts = _post(program, *_HOSTILE[:12], alert("loja"), *_HOSTILE[12:])
    # Unlisted, but somebody's session might be called so: only the list can tell.
    assert counts == {**_NOTHING, "accepted": 10, "ignored": 14}
    wait_until(lambda: sum(_attempts(program).values()) == 10, "all repairs")
    assert _attempts(program) == {
        ("", "unknown_channel", "disconnected"): 9,
        ("loja", "reconnected", "disconnected"): 1,
    }
    assert [call["channel"] for call in simulator.requests() if call["channel"]] == ["loja"]
    of_channels = program.metrics().all("whatsapp_reconnect_qr_required", gateway="wpp")
    assert of_channels == {("loja",): 0}
    lines = _wait_for_lines(tmp_path, 10)
    pattern = re.compile(
        r"\S+ \[healthcheck-sessions\] "
        r'channel=("(?:[^"\\]|\\.)*"|[^\s"=]+) reason=disconnected action=(none|getQr) '
        r"outcome=(unknown_channel|reconnected) attempt=1 seconds=\d+\.\d"
    )
    assert all(pattern.fullmatch(line) for line in lines), lines
    assert all(line.isprintable() for line in lines)


def test_a_repair_is_counted_logged_and_shown_in_files_that_others_do_not_read(
    serve: Callable[..., Program], simulator: Simulator, tmp_path: Path
) -> None:
    simulator.drop("Pixel12 Digital")
    before = os.umask(0)
    try:
        program = serve()
        assert program.get("/-/ready").ok
    finally:
        os.umask(before)
    silent = alert("pixel12digital", alertname="WhatsAppChannelSilent")
    assert _post(program, silent) == {**_NOTHING, "accepted": 1}
    (line,) = _wait_for_lines(tmp_path, 1)
    assert (
        ' [healthcheck-sessions] channel="Pixel12 Digital" reason=silent action=getQr '
        "outcome=reconnected attempt=1 seconds="
    ) in line
    wait_until(lambda: _attempts(program), "the count")
    assert _attempts(program) == {("Pixel12 Digital", "reconnected", "silent"): 1}
    now = program.metrics()
    assert now.get("whatsapp_reconnect_duration_seconds_count", outcome="reconnected") == 1
    assert now.get("whatsapp_reconnect_queue_length") == 0
    assert now.get("whatsapp_reconnect_in_flight") == 0
    calls = {"gateway": "wpp", "operation": "qr"}
    assert now.get("whatsapp_gateway_request_duration_seconds_count", **calls) == 1
    assert program.end() == 0
    (file,) = (tmp_path / "var").glob("*.sqlite3*")
    assert (file.name, file.stat().st_mode & 0o777) == ("reconnect-hook.sqlite3", 0o600)
    log = tmp_path / "logs" / "healthcheck-sessions.log"
    assert log.stat().st_mode & 0o777 == 0o640, "the group may read it"


def test_a_qr_code_never_appears_anywhere(
    serve: Callable[..., Program], running: Program, simulator: Simulator, tmp_path: Path
) -> None:
    simulator.unpair("loja")
    program = serve()
    _post(program, alert("loja"))
    (line,) = _wait_for_lines(tmp_path, 1)
    assert "outcome=qr_required" in line
    name, waits = "whatsapp_reconnect_qr_required", {"gateway": "wpp", "channel": "loja"}
    wait_until(lambda: program.metrics().get(name, **waits) == 1, "the metric")
    shown = [
        program.stderr,
        program.get("/metrics").text,
        program.get("/").text,
        *(p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file()),
        Path(f"/proc/{running.process.pid}/cmdline").read_text(),
    ]
    for secret in ("iVBORw0KGgo", "data:image", SECRET, TOKEN):
        assert not any(secret in text for text in shown), secret


def test_alerts_while_a_repair_is_under_way_make_one_call(
    serve: Callable[..., Program], simulator: Simulator, tmp_path: Path
) -> None:
    simulator.drop("loja")
    simulator.fault("qr", "hang")
    program = serve()
    assert _post(program, alert())["accepted"] == 1
    wait_until(lambda: simulator.requests("qr"), "the call")
    for _ in range(5):
        assert _post(program, alert(), alert())["coalesced"] == 2
    assert program.metrics().get("whatsapp_reconnect_in_flight") == 1
    simulator.clear_faults()
    _wait_for_lines(tmp_path, 1)
    assert len(simulator.requests("qr")) == 1


def test_the_end_gives_back_what_is_under_way(
    serve: Callable[..., Program], simulator: Simulator, tmp_path: Path
) -> None:
    simulator.drop("loja")
    simulator.fault("qr", "hang", times=1)
    program = serve(WPP_GATEWAY_QR_TIMEOUT="3600")
    _post(program, alert())
    wait_until(lambda: simulator.requests("qr"), "the call")
    started = time.monotonic()
    assert program.end() == 0
    assert time.monotonic() - started < 10, "as promised"
    assert state(tmp_path, "SELECT holder, lease_until FROM gateway") == [(None, None)]
    assert state(tmp_path, "SELECT outcome FROM repair_log") == []
    assert len(program.lines) == 1, program.stderr
    serve()
    (line,) = _wait_for_lines(tmp_path, 1)
    assert "outcome=reconnected" in line


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Run one hook for tests of its server; its gateway is away."""
    settings = hook_settings("http://127.0.0.1:1")
    folder = tmp_path_factory.mktemp("running")
    with Program(folder, "reconnect_hook", "serve", settings=settings) as program:
        yield program


def test_a_body_that_is_too_large_is_413_over_the_wire(running: Program) -> None:
    longest = b"{}".ljust(MAX_REQUEST_BYTES)
    assert _send(running, longest).status_code == 400, "it is read, and is no payload"
    for data in (longest + b" ", iter([longest + b" "])):
        answer = _send(running, data)
        assert answer.status_code == 413
        assert answer.json() == {"error": f"the body is larger than {MAX_REQUEST_BYTES} bytes"}
    assert _post(running) == _NOTHING, "and it goes on"


# How it starts.


def test_the_env_file_may_be_named_before_or_after_the_command(tmp_path: Path) -> None:
    values = hook_settings("http://127.0.0.1:1", HOOK_TOKEN="")
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    (tmp_path / "some.env").write_text(text)
    option = ["--env-file", "some.env"]
    for arguments in ([*option, "serve"], ["serve", *option]):
        done = run_here(tmp_path, "reconnect_hook", *arguments, settings={})
        assert done.returncode == 2
        assert done.stderr.startswith("reconnect_hook: HOOK_TOKEN is not set"), done.stderr


# Attacks.

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def test_every_answer_has_the_security_headers(running: Program) -> None:
    paths = ("/", "/metrics", "/-/ready", "/openapi.yaml", "/nowhere")
    answers = [running.get(path) for path in paths]
    answers.append(requests.post(f"{running.url}/alerts", b"", timeout=TIMEOUT))
    answers.append(requests.get(running.url, headers={"X-Long": "x" * 40_000}, timeout=TIMEOUT))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 404, 401, 431]
    for answer in answers:
        assert _HEADERS.items() <= answer.headers.items(), answer.url
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert not answer.headers["Server"]
        assert "granian" not in answer.text.lower()


def test_a_payload_of_too_many_alerts_is_413(app: App) -> None:
    body = b'{"version": "4", "alerts": [%b]}'
    assert app.post(body % b",".join([b"0"] * 20_000))[0] == 202
    assert app.post(body % b",".join([b"0"] * 20_001))[0] == 413


def test_the_token_is_compared_in_constant_time(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def spy(given: bytes, right: bytes) -> bool:
        compared.append((given, right))
        return False

    monkeypatch.setattr("reconnect_hook.auth.hmac.compare_digest", spy)
    assert app.post(payload(), {"Authorization": f"Bearer {TOKEN}"})[0] == 401
    assert compared == [(TOKEN.encode(), TOKEN.encode())], "and nothing else decides"


def test_idle_and_slow_connections_do_not_stop_a_notification(running: Program) -> None:
    where = ("127.0.0.1", int(running.url.rpartition(":")[2]))
    with contextlib.ExitStack() as held:
        for number in range(1000):
            connection = held.enter_context(socket.create_connection(where, timeout=TIMEOUT))
            if number % 2:
                connection.sendall(b"POST /alerts HTTP/1.1\r\nContent-Length: 9999\r\nX-Slow: ")
        assert _post(running, alert("stranger"))["accepted"] == 1


def test_a_database_that_hangs_takes_neither_health_nor_metrics_with_it(
    serve: Callable[..., Program], mariadb: MariaDb, database: sa.URL
) -> None:
    program = serve(HOOK_STATE_URL=database.render_as_string(hide_password=False))
    assert _post(program, alert())["accepted"] == 1
    answered: list[tuple[int, float]] = []

    def send(number: int) -> None:
        began = time.monotonic()
        answer = _send(program, payload(alert(f"channel{number}")))
        answered.append((answer.status_code, time.monotonic() - began))

    senders = [threading.Thread(target=send, args=(number,)) for number in range(24)]
    with mariadb.frozen():
        for sender in senders:
            sender.start()
        for path, status in (("/-/healthy", 200), ("/metrics", 200), ("/-/ready", 503)):
            began = time.monotonic()
            assert program.get(path).status_code == status
            assert time.monotonic() - began < 10, "within a second, on an idle machine"
        for sender in senders:
            sender.join()
    assert {status for status, _ in answered} == {503}
    assert max(seconds for _, seconds in answered) < 10, "and not the ten that it may take"
    wait_until(lambda: program.get("/-/ready").status_code == 200, "the state again")
    assert _post(program, alert("channel7"))["ignored"] == 0


def test_alerts_of_a_gateway_that_is_not_there_are_told_once(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    body = payload(alert(gateway="wp\np"), alert(gateway="wpp"), alert("b", gateway=""))
    for _ in range(3):
        assert app.post(body)[0] == 202
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "alerts of gateway 'wp\\np' are ignored: there is only wpp"
    app.post(payload(*(alert(gateway=f"g{number}") for number in range(1000))))
    assert len(caplog.records) == 100


def test_a_suspicion_waits_for_the_pause_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suspect = payload(alert(alertname="WhatsAppChannelSuspect", remediation="probe"))
    probing = {"WPP_GATEWAY_TYPE": "waha", "PROBE": "query", "PROBE_PAUSE_MINUTES": "30"}
    with SimulatorServer(SECRET, api="waha") as server:
        Simulator(server.url).put_channel("loja")
        with contextlib.closing(Site(server.url, **probing)) as site:
            send = partial(site.http.post, "/alerts", data=suspect, headers=BEARER)
            assert send().status_code == 202
            ended = "SELECT key FROM channel WHERE probe_outcome = 'passed' AND next_at IS NULL"
            wait_until(lambda: state(tmp_path, ended), "the query")
            assert send().status_code == 202
            waits = "SELECT key FROM channel WHERE next_at - strftime('%s', 'now') > 3"
            wait_until(lambda: state(tmp_path, waits), "the next query to be put off")
            assert len(server.calls("query")) == 1


# Audits of messages.


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """Return an application whose gateway lists messages."""
    monkeypatch.chdir(tmp_path)
    with SimulatorServer(SECRET, api="waha") as server:
        Simulator(server.url).put_channel("loja")
        more = {"WPP_GATEWAY_TYPE": "waha", "MESSAGE_LOG_URL": "sqlite:///log.sqlite3"}
        with contextlib.closing(App(server.url, **more)) as made:
            yield made


def test_an_outage_that_ended_has_messages_audited_since_before_it_began(
    audited: App, tmp_path: Path
) -> None:
    began = datetime.fromtimestamp(time.time() - 600, UTC).isoformat()
    down = {"channel": None, "remediation": None, "alertname": "WhatsAppGatewayDown"}
    ended = [
        alert(status="resolved", **down) | {"startsAt": began},
        alert(status="resolved", alertname="WhatsAppChannelSilent") | {"startsAt": began},
        alert("obra", alertname="WhatsAppChannelSilent") | {"startsAt": began},
        alert("casa", status="resolved") | {"startsAt": began},
    ]
    assert audited.post(payload(*ended))[0] == 202

    rows = state(
        tmp_path,
        "SELECT key, round((strftime('%s', 'now') - since) / 60),"
        " round((due_at - strftime('%s', 'now')) / 60) FROM message_audit ORDER BY key",
    )
    silent = 4 * 60
    assert [tuple(row) for row in rows] == [("", 25, 2), ("casa", 25, 2), ("loja", 25 + silent, 2)]


def test_the_api_tells_and_wants_audits(audited: App, tmp_path: Path) -> None:
    def ask(method: str, path: str) -> tuple[int, Any]:
        answer = audited.http.open(f"/api/{path}", method=method, headers=BEARER)
        return answer.status_code, answer.get_json()

    wait_until(lambda: ask("GET", "channels/loja")[0] == 200, "the channel to be known")
    assert ask("GET", "audit/loja") == (200, {"audit": None})
    assert ask("GET", "missed/loja") == (200, {"missed": []})
    assert ask("POST", "audit/loja")[0] == 202
    _, told = ask("GET", "audit/loja")
    assert told["audit"]["result"] is None
    assert told["audit"]["due_at"] <= time.time()
    state(
        tmp_path,
        "INSERT INTO missed_message (gateway, key, id, at, kind, chat, found_at)"
        " VALUES ('wpp', 'loja', 'A1', 5, 'text', '0001', 6)",
    )
    missed = {"id": "A1", "at": 5, "kind": "text", "chat_ends_in": "0001"}
    remembered = missed | {"found_at": 6, "arrived_at": None}
    remembered |= {"replay": None, "replayed_at": None, "replay_detail": ""}
    assert ask("GET", "missed/loja") == (200, {"missed": [remembered]})
    refused = ask("POST", "replay/loja")
    assert refused == (409, {"error": "MESSAGE_REPLAY_URL is not set"})
    assert state(tmp_path, "SELECT replay_at FROM message_audit") == [(None,)]


def test_where_nothing_can_be_compared_no_audit_is_wanted(app: App, tmp_path: Path) -> None:
    down = {"channel": None, "remediation": None, "alertname": "WhatsAppGatewayDown"}
    assert app.post(payload(alert(status="resolved", **down)))[0] == 202
    answer = app.http.post("/api/audit/loja", headers=BEARER)

    assert answer.status_code == 409
    assert state(tmp_path, "SELECT * FROM message_audit") == []
