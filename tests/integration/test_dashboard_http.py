"""The page and its API over HTTP: who comes in, what stands in headers and cookies."""

from __future__ import annotations

import base64
import html
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import requests
import yaml
from flask.testing import FlaskClient
from sqlalchemy import make_url
from werkzeug.test import TestResponse

from demo.configuration import ROOT
from demo.simulator.apis.openwa import openwa_id
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from reconnect_hook import app as hook_app
from reconnect_hook import auth
from reconnect_hook.dashboard import snapshot
from tests.support.hooks import SECRET, TOKEN, hook_settings, state
from tests.support.message_logs import WrittenLog
from tests.support.programs import Fork, Program
from tests.support.site import BEARER, Site
from tests.support.states import locked
from tests.support.waiting import wait_until
from zapwatch import front
from zapwatch.channels import channel_key
from zapwatch.messages.event_store import Batch, EventStore, Last, Minutes

_DOCS = ROOT / "docs"
_OPENAPI = Path(hook_app.__file__).with_name("openapi.yaml")


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    simulator.put_channel("loja", session="unpaired")
    return simulator


@pytest.fixture
def site(simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    made = Site(simulator.url)
    yield made
    made.close()


def log_in(browser: FlaskClient, token: str = TOKEN, **more: Any) -> TestResponse:
    return browser.post("/login", data={"token": token}, **more)


def repairs() -> list[Any]:
    return list(state(Path.cwd(), "SELECT channel, cause FROM channel WHERE since IS NOT NULL"))


# Coming in.


def test_without_a_session_nothing_is_shown_or_done(site: Site) -> None:
    browser = site.browser()
    for path in ("/", "/channels/loja", "/channels/a%2Fb", "/channels//x"):
        answer = browser.get(path)
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith("/login?next=/")
    # As a message or a dashboard links it.
    answer = browser.get("/channels/Loja%20%3Cb%3E%2FCentro")
    assert answer.headers["Location"] == "/login?next=/channels/Loja%2520%253Cb%253E/Centro"
    for path in ("/live/channels", "/live/channel/loja", "/live/qr/loja", "/qr/loja"):
        assert browser.get(path).status_code == 401
    for path in ("reconnect/loja", "ask/loja", "pause/loja", "resume/loja"):
        assert browser.post(f"/{path}").status_code == 401
        assert browser.post(f"/api/{path}").status_code == 401
    assert repairs() == []


def test_the_form_leads_back_and_never_elsewhere(site: Site) -> None:
    for wanted, leads_to in (
        ("/channels/loja", "/channels/loja"),
        ("/channels/a%2Fb?lang=en", "/channels/a%2Fb?lang=en"),
        ("//evil.example.com/", "/"),
        ("/\\evil.example.com", "/"),
        ("https://evil.example.com/", "/"),
        ("/\r\nSet-Cookie: a=b", "/"),
        ("", "/"),
    ):
        browser = site.browser()
        answer = browser.post("/login", query_string={"next": wanted}, data={"token": TOKEN})
        assert answer.status_code == 303
        assert answer.headers["Location"] == leads_to


def test_the_cookie_is_httponly_samesite_and_secure_over_tls(site: Site) -> None:
    plain = log_in(site.browser()).headers["Set-Cookie"]
    assert plain.startswith("zapwatch=")
    assert "HttpOnly" in plain
    assert "SameSite=Lax" in plain
    assert "Secure" not in plain
    tls = log_in(site.browser(), base_url="https://zapwatch.example.com")
    assert "Secure" in tls.headers["Set-Cookie"]
    assert TOKEN not in plain
    again = log_in(site.browser()).headers["Set-Cookie"]
    assert again != plain, "nothing in it follows from the token"


def test_a_session_is_good_at_the_hook_that_began_it_alone(
    site: Site, simulator: Simulator
) -> None:
    browser = site.browser()
    log_in(browser)
    cookie = browser.get_cookie("zapwatch")
    assert cookie is not None
    with closing(Site(simulator.url)) as restarted:
        other = restarted.browser()
        other.set_cookie("zapwatch", cookie.value)
        assert other.get("/").status_code == 303
    assert browser.get("/").status_code == 200


def test_a_session_ends_after_30_days(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_SESSION_SECONDS", 0)
    browser = site.browser()
    browser.set_cookie("zapwatch", log_in(site.browser()).headers["Set-Cookie"].split("=")[1][:43])
    assert browser.get("/").status_code == 303


def test_the_sessions_that_are_open_are_bounded(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_SESSIONS", 2)
    browsers = [site.browser() for _ in range(3)]
    for browser in browsers:
        log_in(browser)
    assert [browser.get("/").status_code for browser in browsers] == [303, 200, 200]


def test_a_cookie_that_is_no_utf8_is_no_session(site: Site) -> None:
    known = site.app.extensions[hook_app.AUTH].is_known
    assert not known({"HTTP_COOKIE": "zapwatch=\xff"})
    assert site.browser().get("/", headers={"Cookie": "zapwatch=\xff"}).status_code == 303


def test_logging_out_ends_the_session_for_whoever_has_its_cookie(site: Site) -> None:
    browser, thief = site.browser(), site.browser()
    log_in(browser)
    cookie = browser.get_cookie("zapwatch")
    assert cookie is not None
    thief.set_cookie("zapwatch", cookie.value)
    assert thief.get("/").status_code == 200
    assert browser.post("/logout").status_code == 303
    assert browser.get_cookie("zapwatch") is None
    assert thief.get("/").status_code == 303


def test_scripts_send_the_token_with_each_request(site: Site) -> None:
    browser = site.browser()
    for value in (f"Bearer {TOKEN}", f"bearer  {TOKEN} ", _basic("anybody"), _basic("")):
        headers = {"Authorization": value}
        assert browser.get("/api/channels", headers=headers).status_code == 200
        assert browser.get("/", headers=headers).status_code == 200
        assert browser.post("/api/reconnect/loja", headers=headers).status_code == 202
        assert browser.get("/").status_code == 303, "that was for those requests alone"


def _basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{TOKEN}".encode()).decode()


def test_other_credentials_are_401(site: Site) -> None:
    bearers = ("", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x")
    for number, value in enumerate((*bearers, "Basic", "Basic !", "Basic YTpi", "X")):
        headers, place = {"Authorization": value}, {"REMOTE_ADDR": f"203.0.113.{number}"}
        answer = site.browser().get("/api/channels", headers=headers, environ_base=place)
        assert answer.status_code == 401, value
        assert answer.headers["WWW-Authenticate"].startswith("Bearer"), "no browser's own window"


# What others would make a browser do.


_ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "nonsense"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Origin": "https://evil.example.com"},
    {"Origin": "http://localhost.evil.example.com"},
    {"Origin": "http://localhost.evil"},
    {"Origin": "http://localhost:8080"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://["},
]
_HERE = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "null"},  # of a page that tells no address
    {"Origin": "http://localhost"},
]


def test_what_another_site_makes_a_browser_post_is_refused(site: Site) -> None:
    browser = site.browser()
    log_in(browser)
    for headers in _ELSEWHERE:
        for path in ("/reconnect/loja", "/pause/loja", "/api/reconnect/loja", "/logout"):
            assert browser.post(path, headers=headers).status_code == 403, headers
            remembered = {**headers, "Authorization": _basic("a")}
            assert site.browser().post(path, headers=remembered).status_code == 403, headers
        stranger = site.browser()
        assert log_in(stranger, headers=headers).status_code == 403
        assert stranger.get("/").status_code == 303
    assert repairs() == []
    assert browser.get("/").status_code == 200
    assert browser.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200, "a link"


def test_what_its_own_pages_and_scripts_post_is_taken(site: Site) -> None:
    for headers in _HERE:
        browser = site.browser()
        assert log_in(browser, headers=headers).status_code == 303
        assert browser.post("/reconnect/loja", headers=headers).status_code == 303
        assert browser.post("/api/reconnect/loja", headers=headers).status_code == 202
    remembered = {"Authorization": _basic("a"), "Origin": "http://localhost"}
    assert site.browser().post("/api/reconnect/loja", headers=remembered).status_code == 202


def test_an_origin_that_cannot_be_read_is_no_fault(site: Site) -> None:
    for authorization in ("Bearer x", f"Bearer {TOKEN}"):
        headers = {"Authorization": authorization, "Origin": "http://["}
        assert site.browser().get("/api/channels", headers=headers).status_code == 403


# Guessing.


def _post_alerts(browser: FlaskClient, token: str, **more: Any) -> int:
    body = {"version": "4", "alerts": []}
    headers = {"Authorization": f"Bearer {token}"}
    return browser.post("/alerts", json=body, headers=headers, **more).status_code


@pytest.mark.parametrize("path", ["/alerts", "/notifications", "/api/channels", "/login"])
def test_wrong_tokens_are_limited_everywhere_and_the_right_one_is_not(
    site: Site, path: str
) -> None:
    browser = site.browser()

    def guess(**more: Any) -> TestResponse:
        if path == "/login":
            return log_in(browser, "wrong", **more)
        ask = browser.get if path.startswith("/api") else browser.post
        return ask(path, headers={"Authorization": "Bearer wrong"}, **more)

    for _ in range(5):
        assert guess().status_code == 401
    refused = guess()
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "60"
    # Who names another address has none.
    assert guess(environ_base={"REMOTE_ADDR": "203.0.113.7"}).status_code == 401
    # Alertmanager, from the very address.
    assert _post_alerts(browser, TOKEN) == 202
    assert log_in(site.browser()).status_code == 303
    # The address may be a proxy's, so that resets nothing.
    assert guess().status_code == 429
    site.clock.ahead = 61
    assert guess().status_code == 401


def test_who_is_in_stays_in_while_others_guess(site: Site) -> None:
    inside = site.browser()
    log_in(inside)
    for _ in range(6):
        log_in(site.browser(), "wrong")
    assert inside.get("/").status_code == 200


def test_the_addresses_that_are_counted_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "_ADDRESSES", 3)
    book = front.LoginThrottle()
    for number in range(10):
        book.note_wrong(f"192.0.2.{number}")
    assert len(book._counts) == 3


# Headers.


def test_pages_allow_nothing_inline_and_nothing_from_elsewhere(site: Site) -> None:
    browser = site.browser()
    log_in(browser)
    missing = ("/channels/nobody", "/nowhere", "/reconnect/loja")
    for path in ("/login", "/", "/channels/loja", "/page/page.css", *missing):
        answer = browser.get(path, headers={"Accept": "text/html,*/*;q=0.8"}, buffered=True)
        assert answer.status_code == (404 if path in missing else 200)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        if answer.mimetype == "text/html":
            assert answer.headers["Cache-Control"] == "no-store"
            assert " style=" not in answer.text
            assert not re.search(r"<script(?![^>]* src=)", answer.text)
            assert not re.search(r" on\w+=", answer.text)
            assert not re.search(r'(src|href)="(?!/|#)', answer.text.replace(_silence(answer), ""))


def _silence(answer: TestResponse) -> str:
    found = re.search(r'href="http://127.0.0.1:1/#/silences[^"]*"', answer.text)
    return found[0] if found else "nothing"


def test_what_is_no_page_is_404(site: Site) -> None:
    for path in ("/channels/", "/channels/..", "/channels/%00", "/nowhere", "/..%2fetc/passwd"):
        assert site.browser().get(path, headers=BEARER).status_code == 404
    assert site.browser().post("/metrics").status_code == 405
    for path, code, error in (
        ("/nowhere", 404, "Not Found"),
        ("/alerts", 405, "Method Not Allowed"),
    ):
        for accept in ("*/*", "application/json", ""):
            answer = site.browser().get(path, headers={"Accept": accept})
            assert (answer.status_code, answer.get_json()) == (code, {"error": error})


def test_the_links_of_a_page_that_is_missing_stay_on_this_host(site: Site) -> None:
    for path in ("//evil.example.com", "///evil.example.com/x"):
        wants_page = {"Accept": "text/html"}
        answer = site.browser().get(headers=wants_page, environ_overrides={"PATH_INFO": path})
        assert answer.status_code == 404
        links = re.findall(r'href="([^"]*)"', answer.text)
        assert any("lang=" in link for link in links)
        assert not [link for link in links if link.startswith("//")]


def test_hostile_names_stay_text(site: Site, simulator: Simulator) -> None:
    name = "<script>alert(1)</script>"
    simulator.put_channel(name)
    answer = site.browser().get("/channels/%3Cscript%3Ealert(1)%3C%2Fscript%3E", headers=BEARER)
    assert answer.status_code == 200
    assert name not in answer.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text


# The QR code.


def test_a_code_is_asked_for_only_while_somebody_looks_at_who_needs_one(
    site: Site, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    browser = site.browser()
    for path in ("/", "/channels/loja", "/live/qr/loja", "/qr/loja", "/api/channels"):
        browser.get(path, headers=BEARER)
    asked_for = [one["operation"] for one in simulator.requests()]
    assert asked_for == ["list"], "one list for all of them, and nothing needs a code"
    _repair(browser)
    asked = len(simulator.requests("qr"))
    for path in ("/", "/channels/loja", "/live/channel/loja", "/api/channels/loja"):
        browser.get(path, headers=BEARER)
    assert len(simulator.requests("qr")) == asked, "the page alone does not ask"
    wait_until(lambda: _look(browser)["state"] == "code", "the code")
    answer = browser.get("/qr/loja", headers=BEARER)
    assert answer.mimetype == "image/png"
    assert answer.headers["Cache-Control"] == "no-store"
    kept = [path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()]
    kept.append(caplog.text.encode())
    for secret in (answer.data, b"IDAT", base64.b64encode(answer.data)[:20], b"data:image"):
        assert not any(secret in one for one in kept)
    simulator.scan("loja")
    wait_until(lambda: _look(browser)["state"] == "connected", "the scan to be seen")
    assert browser.get("/qr/loja", headers=BEARER).mimetype == "image/gif", "no code any more"


def test_no_code_is_asked_for_where_none_is_needed(site: Site, simulator: Simulator) -> None:
    wait_until(lambda: not _asking(), "the other tests' codes to be forgotten")
    simulator.put_channel("well", reconnect_seconds=0)
    browser = site.browser()
    browser.post("/api/reconnect/well", headers=BEARER)

    def ended() -> bool:
        found = browser.get("/api/channels/well", headers=BEARER).get_json()
        return bool(found.get("last_attempt"))

    wait_until(ended, "the repair to end")
    asked = len(simulator.requests("qr"))
    answer = browser.get("/live/qr/well", headers=BEARER).get_json()
    assert answer["state"] == "none"
    assert browser.get("/qr/well", headers=BEARER).mimetype == "image/gif"
    assert len(simulator.requests("qr")) == asked
    assert not _asking()


def _asking() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "qr"]


def test_all_who_look_share_one_call_at_a_time(site: Site, simulator: Simulator) -> None:
    _repair(site.browser())
    simulator.fault("qr", "hang")
    before = len(simulator.requests("qr"))
    for _ in range(50):
        _look(site.browser())
    wait_until(lambda: len(simulator.requests("qr")) > before, "the call")
    for _ in range(50):
        _look(site.browser())
    assert len(simulator.requests("qr")) == before + 1
    simulator.clear_faults()


def _repair(browser: FlaskClient) -> None:
    """Let a repair find that the channel needs a code."""

    def status() -> object:
        return (browser.get("/api/channels/loja", headers=BEARER).get_json() or {}).get("status")

    browser.post("/api/reconnect/loja", headers=BEARER)
    wait_until(lambda: status() == "needs-scan", "the repair to find a code")


def _look(browser: FlaskClient) -> dict[str, Any]:
    return dict(browser.get("/live/qr/loja", headers=BEARER).get_json())


# The API.


def test_while_no_list_is_answered_a_channel_is_not_called_unknown(
    site: Site, simulator: Simulator
) -> None:
    def answers() -> tuple[int, int]:
        paused = browser.post("/api/pause/loja", json={"hours": 1}, headers=BEARER)
        return paused.status_code, browser.get("/channels/loja", headers=BEARER).status_code

    browser = site.browser()
    simulator.fault("list", "hang")
    assert answers() == (503, 200)
    simulator.clear_faults()
    wait_until(lambda: answers() == (200, 200), "the list")


def test_before_the_first_reading_there_is_no_empty_list(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "_WAIT_SECONDS", 0.0)
        assert site.browser().get("/api/channels", headers=BEARER).status_code == 503
    (loja,) = site.browser().get("/api/channels", headers=BEARER).get_json()["channels"]
    assert loja["channel"] == "loja"


def test_the_api_tells_of_a_repair_from_its_beginning_to_its_end(
    site: Site, simulator: Simulator
) -> None:
    browser = site.browser()
    assert browser.get("/api/channels/nobody", headers=BEARER).status_code == 404
    assert browser.post("/api/pause/nobody", json={"hours": 1}, headers=BEARER).status_code == 404
    assert browser.get("/api/attempts/loja", headers=BEARER).get_json() == {"attempts": []}
    _repair(browser)
    (told,) = browser.get("/api/attempts/loja", headers=BEARER).get_json()["attempts"]
    outcome = (told["reason"], told["action"], told["outcome"])
    assert outcome == ("manual", "getQr", "qr_required")
    refused = browser.post("/api/ask/loja", headers=BEARER)
    assert refused.status_code == 409, "it has nothing to ask with"
    assert "echoes" in refused.get_json()["error"]
    assert [reason for _, reason in repairs()] == ["manual"]
    everything = browser.get("/api/channels", headers=BEARER).get_json()
    assert [one["channel"] for one in everything["channels"]] == ["loja"]
    assert everything["troubles"] == ["prometheus", "alertmanager"]
    assert browser.get("/api/log/nobody", headers=BEARER).get_json() == {"attempts": []}
    logged = browser.get("/api/log/loja", headers=BEARER).get_json()["attempts"]
    assert [(one["kind"], one["outcome"]) for one in logged] == [("repair", "qr_required")]
    assert logged[0]["steps"][0]["step"] == "asked"
    # What is answered is what the description says.
    schemas = yaml.safe_load(_OPENAPI.read_text())["components"]["schemas"]
    for name, answers in (
        ("Channel", everything["channels"]),
        ("Attempt", [told]),
        ("LoggedAttempt", logged),
    ):
        for answer in answers:
            assert set(answer) == set(schemas[name]["required"])
            assert set(answer) == set(schemas[name]["properties"])


def test_without_prometheus_ages_and_the_week_come_from_the_message_log(
    simulator: Simulator, sqlite_log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    simulator.put_channel("obra")
    simulator.put_channel("vendas")
    sqlite_log.write_history("obra", [9 * 3600])
    sqlite_log.write_history("vendas", [5.5 * 86400, 86400, 600])
    url = sqlite_log.reader.render_as_string(hide_password=False)
    with closing(Site(simulator.url, MESSAGE_LOG_URL=url, SILENT_HOURS="4")) as site:
        browser = site.browser()
        log_in(browser)

        def statuses() -> dict[str, str]:
            found = browser.get("/api/channels", headers=BEARER).get_json()["channels"]
            return {one["channel"]: one["status"] for one in found}

        expected = {"obra": "silent", "vendas": "connected", "loja": "disconnected"}
        wait_until(lambda: statuses() == expected, "the ages")
        told = browser.get("/api/channels/vendas", headers=BEARER).get_json()
        assert 590 < time.time() - told["last_message"] < 700
        assert told["silence_threshold_seconds"] == 4 * 3600
        words = "Minutes with messages per hour, 6 days"
        wait_until(lambda: words in browser.get("/channels/vendas").text, "the week")
        page = browser.get("/channels/vendas").text
        day = page.partition('data-part="day"')[2].partition("</section>")[0]
        # A day ago there was a message, ten minutes ago another one, and for hours none between.
        for state in ("connected", "silent", "unknown"):
            assert f'<rect class="{state}"' in day
        assert day.count("From the message table, where Prometheus has no history.") == 1


def test_a_pause_can_be_begun_and_ended(site: Site) -> None:
    browser = site.browser()
    _repair(browser)

    def pause(body: Any) -> TestResponse:
        return browser.post("/api/pause/loja", json=body, headers=BEARER)

    wrong: list[Any] = [{"hours": hours} for hours in (0, -1, "1", True, 1e9)]
    for body in (*wrong, {}, [], None):
        assert pause(body).status_code == 400
    for deep in ("[" * 100_000, '{"hours": 1, "a": [' + "[]," * 2_000_000 + "0]}"):
        headers = {**BEARER, "Content-Type": "application/json"}
        assert browser.post("/api/pause/loja", data=deep, headers=headers).status_code == 400
    timed = pause({"hours": 0.5}).get_json()
    assert timed["paused"]["until"] is not None
    assert pause({"hours": None}).get_json()["paused"] == {"until": None}
    assert browser.post("/api/reconnect/loja", headers=BEARER).status_code == 409
    resumed = browser.post("/api/resume/loja", headers=BEARER)
    assert resumed.get_json()["paused"] is None
    assert browser.post("/api/reconnect/loja", headers=BEARER).status_code == 202


def test_sessions_whose_names_differ_in_case_are_two_on_page_and_api(
    site: Site, simulator: Simulator
) -> None:
    simulator.put_channel("Loja", session="unpaired")
    simulator.put_channel("Obra")
    browser = site.browser()
    log_in(browser)

    def channels() -> dict[str, Any]:
        found = browser.get("/api/channels", headers=BEARER).get_json()["channels"]
        return {one["channel"]: one for one in found}

    wait_until(lambda: channels().keys() == {"Loja", "loja", "Obra"}, "all")
    assert browser.post("/api/pause/Loja", json={"hours": 8}, headers=BEARER).status_code == 200
    assert browser.post("/api/reconnect/loja", headers=BEARER).status_code == 202
    wait_until(lambda: channels()["loja"]["status"] == "needs-scan", "its repair")
    assert (channels()["loja"]["paused"], channels()["Loja"]["status"]) == (None, "disconnected")
    assert channels()["Loja"]["paused"] is not None
    assert [call["channel"] for call in simulator.requests("qr")][:1] == ["loja"]
    url = browser.post("/api/scan-links/Loja", json={}, headers=BEARER).get_json()["url"]
    assert "Loja" in browser.get(urlsplit(url).path).text
    for name in ("Loja", "loja"):
        assert f'<h1 class="title">{name}</h1>' in browser.get(f"/channels/{name}").text
    for path in ("/channels/LOJA", "/api/channels/LOJA", "/api/attempts/lo%20ja"):
        answer = browser.get(path, headers=BEARER)
        assert (answer.status_code, "any of Loja, loja" in answer.text) == (404, True)
    assert browser.post("/api/reconnect/LOJA", headers=BEARER).status_code == 404
    assert {row.channel for row in repairs()} == {"loja"}
    assert browser.get("/api/channels/o%20bra", headers=BEARER).get_json()["channel"] == "Obra"


def test_a_state_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr("zapwatch.db._TIMEOUT", 0.5)
    site: Site = request.getfixturevalue("site")  # which opens the state
    site.supervisor.stop(5)
    browser = site.browser()
    log_in(browser)
    with locked(site.state_url):
        answer = browser.post("/reconnect/loja")
        assert answer.status_code == 503
        assert "The state of the Zapwatch server" in answer.text
        assert browser.post("/api/reconnect/loja", headers=BEARER).status_code == 503
        assert browser.get("/").status_code == 200


# Languages.


def test_the_language_is_what_the_browser_asks_for(site: Site) -> None:
    for accepted, language in {
        "pt-BR,pt;q=0.9,en;q=0.8": "pt-BR",
        "pt": "pt-BR",
        "pt-PT,pt;q=0.9": "pt-BR",
        "en-GB,en;q=0.9,pt;q=0.1": "en",
        "de,fr": "en",
        "*": "en",
        "": "en",
        ";;;,,,q=": "en",
    }.items():
        page = site.browser().get("/login", headers={"Accept-Language": accepted})
        assert f'<html lang="{language}">' in page.text
        assert ("Entrar" in page.text) is (language == "pt-BR")


# The documentation.

_ALERT = "/docs/runbook/WhatsAppGatewayDown"


@pytest.mark.parametrize(
    ("language", "words"), [("en", "The channel list has failed"), ("pt-BR", "a lista de canais")]
)
def test_an_alerts_page_is_in_the_readers_language_and_needs_no_login(
    site: Site, language: str, words: str
) -> None:
    asked = {"Accept-Language": language}
    answer = site.browser().get(_ALERT, headers=asked)
    assert words in answer.text
    assert f'<article class="card docs" lang="{language}">' in answer.text
    assert ">Whats<wbr>App<wbr>Gateway<wbr>Down</h1>" in answer.text, "it fits a phone"
    assert {"Accept-Language", "Cookie"} <= set(answer.vary)
    again = site.browser().get(_ALERT, headers={**asked, "If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.text) == (304, "")


@pytest.mark.parametrize("language", ["en", "pt-BR"])
def test_all_of_the_documentation_is_reached_and_no_link_is_dead(site: Site, language: str) -> None:
    waiting, pages, ids, anchors = ["/docs/"], set(), {}, set()
    while waiting:
        path = waiting.pop()
        if path in pages:
            continue
        pages.add(path)
        answer = site.browser().get(path, headers={"Accept-Language": language}, buffered=True)
        assert answer.status_code == 200, path
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")
        if answer.mimetype != "text/html":
            assert answer.headers["Cache-Control"] == "public, max-age=86400", path
            continue
        assert answer.headers["Cache-Control"] == "no-cache"
        assert " style=" not in answer.text
        assert "&lt;img" not in answer.text
        body = answer.text.partition("<article")[2].partition("</article>")[0]
        ids[path] = set(re.findall(r' id="([^"]+)"', body))
        for link in re.findall(r' (?:href|src)="([^"]+)"', body):
            found = urlsplit(urljoin(f"http://localhost{path}", html.unescape(link)))
            # A choice of the language leads to the same page's other half.
            if found.netloc == "localhost" and not found.query:
                waiting.append(found.path)
                if found.fragment:
                    anchors.add((found.path, unquote(found.fragment)))
    assert [one for one in anchors if one[1] not in ids[one[0]]] == []
    files = {path.relative_to(_DOCS) for path in _DOCS.rglob("*.md") if "pt-BR" not in path.parts}
    assert len(ids) == len(files)
    assert _ALERT in pages
    assert any(page.endswith(".png") for page in pages)


def test_nothing_but_the_documentation_is_served(site: Site) -> None:
    for path in (
        *("nowhere", "README.md", "runbook/README", "runbook/README.md", "pt-BR/qr", "images/"),
        *("images/nothing.png", "..", "../.env", "..%2f.env", "images/../README.md", "a\\b"),
        *("runbook/..%2f..%2fpyproject.toml", "/etc/passwd", "%2fetc%2fpasswd", "%00"),
    ):
        answer = site.browser().get(f"/docs/{path}", headers={"Accept": "text/html"})
        assert answer.status_code == 404, path
    assert site.browser().get("/docs/runbook").headers["Location"] == "/docs/runbook/"


# Behind a proxy.


def test_a_trusted_proxy_says_client_tls_and_the_path_above_the_page(
    simulator: Simulator, tmp_path: Path
) -> None:
    settings = hook_settings(simulator.url, HOOK_TRUSTED_PROXY="127.0.0.1")
    with Fork(tmp_path, "reconnect_hook", "serve", settings=settings) as program:
        tls = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.1"}
        assert "Secure" in _login(program, tls)
        url = f"{program.url}/api/channels"
        for _ in range(5):
            wrong = {**tls, "Authorization": "Bearer wrong"}
            assert requests.get(url, headers=wrong, timeout=30).status_code == 401
        assert requests.get(url, headers=wrong, timeout=30).status_code == 429
        other = {**wrong, "X-Forwarded-For": "203.0.113.2"}
        assert requests.get(url, headers=other, timeout=30).status_code == 401

        def led_to(path: str, headers: dict[str, str]) -> str:
            url = f"{program.url}{path}"
            answer = requests.get(url, headers=headers, allow_redirects=False, timeout=30)
            return answer.headers["Location"]

        below = {"X-Forwarded-Prefix": "/zap/", "X-Forwarded-For": "203.0.113.1"}
        for path in ("/", "/zap/"):
            assert led_to(path, below) == "/zap/login?next=/zap/"
        form = requests.get(f"{program.url}/login", headers=below, timeout=30).text
        addresses = re.findall(r' (?:href|src|action)="([^"#][^"]*)"', form)
        assert len(addresses) > 4
        assert all(address.startswith("/zap/") for address in addresses)

        def knows_loja() -> bool:
            return requests.get(f"{url}/loja", headers=BEARER, timeout=30).status_code == 200

        wait_until(knows_loja, "the gateway's list")
        for prefix in ("", "/zap"):  # one hook may be reached both ways
            for path in ("/", "/live/channels", "/channels/loja"):
                headers = {**BEARER, "X-Forwarded-Prefix": prefix}
                text = requests.get(f"{program.url}{path}", headers=headers, timeout=30).text
                links = re.findall(r'(?:href|formaction)=\\?"(/[^"\\]*)', text)
                links = [one for one in links if "lang=" not in one]
                assert len(links) > 4
                assert {one.startswith("/zap/") for one in links} == {bool(prefix)}, path
        for odd in ("//evil.example.com", "/a?b", "zap", '/zap"x'):
            assert led_to("/", {"X-Forwarded-Prefix": odd}) == "/login?next=/"


def _login(program: Program, headers: dict[str, str]) -> str:
    """Log in, and return the cookies."""
    login: dict[str, Any] = {"data": {"token": TOKEN}, "allow_redirects": False, "timeout": 30}
    answer = requests.post(f"{program.url}/login", headers=headers, **login)
    return answer.headers["Set-Cookie"]


def test_all_addresses_are_below_the_external_url(simulator: Simulator, tmp_path: Path) -> None:
    settings = hook_settings(simulator.url, HOOK_EXTERNAL_URL="https://example.com/zap/")
    with Fork(tmp_path, "reconnect_hook", "serve", settings=settings) as program:
        browser = requests.Session()
        browser.headers["Host"] = "example.com"
        address = f"{program.url}/zap"
        assert "page at https://example.com/zap/," in program.stderr
        # A proxy may leave the path in a request, or take it out.
        for path in ("/", "/zap", "/zap/"):
            answer = browser.get(f"{program.url}{path}", allow_redirects=False, timeout=30)
            assert answer.headers["Location"] == "/zap/login?next=/zap/"
        assert browser.get(f"{program.url}/-/healthy", timeout=30).status_code == 200
        assert browser.get(f"{address}/-/healthy", timeout=30).status_code == 200
        form = browser.get(f"{address}/login", timeout=30).text
        answer = browser.post(
            f"{address}/login?lang=en",
            headers={"Origin": "https://example.com"},
            data={"token": TOKEN},
            allow_redirects=False,
            timeout=30,
        )
        assert answer.headers["Location"] == "/zap/"
        cookies = answer.headers["Set-Cookie"]
        assert cookies.count("; Secure; HttpOnly; Path=/zap; SameSite=Lax") == 2
        session = {"Cookie": cookies.partition(";")[0]}
        overview = browser.get(f"{address}/", headers=session, timeout=30).text
        pattern = r' (?:href|src|action|data-live)="([^"#?][^"]*)"'
        addresses = re.findall(pattern, form) + re.findall(pattern, overview)
        assert len(addresses) > 20
        assert [one for one in addresses if not one.startswith("/zap/")] == []
        assert browser.get(f"{address}/api/channels", headers=BEARER, timeout=30).status_code == 200
        styles = next(one for one in addresses if "page.css" in one)
        assert browser.get(f"{program.url}{styles}", timeout=30).status_code == 200
        out = browser.post(f"{address}/logout", headers=session, allow_redirects=False, timeout=30)
        assert "Max-Age=0; " in out.headers["Set-Cookie"]
        assert "Path=/zap" in out.headers["Set-Cookie"]


def test_nobody_else_is_believed(simulator: Simulator, tmp_path: Path) -> None:
    settings = hook_settings(simulator.url)
    with Fork(tmp_path, "reconnect_hook", "serve", settings=settings) as program:
        tls = {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/zap"}
        assert "Secure" not in _login(program, tls)
        url = f"{program.url}/api/channels"
        for number in range(6):
            wrong = {"Authorization": "Bearer wrong", "X-Forwarded-For": f"203.0.113.{number}"}
            answer = requests.get(url, headers=wrong, timeout=30)
        assert answer.status_code == 429


def test_a_network_of_ipv6_guesses_as_one_address(simulator: Simulator, tmp_path: Path) -> None:
    settings = hook_settings(simulator.url, HOOK_TRUSTED_PROXY="127.0.0.1")
    with Fork(tmp_path, "reconnect_hook", "serve", settings=settings) as program:

        def guess(address: str) -> int:
            headers = {"Authorization": "Bearer wrong", "X-Forwarded-For": address}
            url = f"{program.url}/api/channels"
            return requests.get(url, headers=headers, timeout=30).status_code

        assert [guess(f"2001:db8:0:1:{n}::1") for n in range(6)] == [401] * 5 + [429]
        assert guess("2001:DB8::1:0:0:0:1") == 429
        assert guess("2001:db8:0:2::1") == 401
        # IPv4 addresses share nothing, however they are written.
        assert [guess(f"::ffff:203.0.113.{n}") for n in range(6)] == [401] * 6
        assert [guess("203.0.113.1") for _ in range(5)] == [401] * 4 + [429]


def test_the_week_of_a_channel_whose_messages_have_another_name_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url, now = f"sqlite:///{tmp_path}/messages.sqlite3", time.time()
    key = channel_key(openwa_id("loja"))
    hour = int(now // 3600) - 1
    store = EventStore(make_url(url))
    batch = Batch({key: Last(now, 0, now)}, {(key, hour): Minutes(0b101, 2)})
    store.write({"wpp": batch}, now)
    store.close()
    events = {"MESSAGE_SOURCE": "events", "MESSAGES_TOKEN": TOKEN, "MESSAGES_STATE_URL": url}
    with SimulatorServer(SECRET, api="openwa") as server:
        Simulator(server.url).put_channel("loja")
        site = Site(server.url, WPP_GATEWAY_TYPE="openwa", **events)
        operator = site.browser()
        operator.post("/login", data={"token": TOKEN})
        wait_until(lambda: 'class="chart' in operator.get("/channels/loja").text, "the chart")
        assert "From the received events" in operator.get("/channels/loja").text
        site.close()
