"""Scan links over HTTP: who gets in with one, how far, and what is written of it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from reconnect_hook.dashboard.qr import QrState, QrWatches
from reconnect_hook.dashboard.timeline import ConnectedShares, Shares
from reconnect_hook.scan_links import MOST_LINKS, ScanLinks
from reconnect_hook.schema import scan_links
from tests.support.hooks import SECRET, TOKEN, log_lines, state
from tests.support.site import Site
from tests.support.waiting import wait_until
from tests.support.world import GATEWAY, World

_BEARER = {"Authorization": f"Bearer {TOKEN}"}
_WRONG = "A" * 32
_ADDRESS = "https://example.com/zap"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with SimulatorServer(SECRET, api="waha") as server:
        made = Simulator(server.url)
        made.put_channel("loja", session="unpaired", status="qr_required")
        made.put_channel("oficina")
        yield made


@pytest.fixture(scope="module")
def app(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with chdir(tmp_path_factory.mktemp("site")):
        made = Site(
            simulator.url,
            WPP_GATEWAY_TYPE="waha",
            WPP_GATEWAY_NAME="the-gateway",
            HOOK_EXTERNAL_URL=_ADDRESS,
        )
        browser = made.browser()
        browser.post("/api/reconnect/loja", headers=_BEARER)
        wait_until(lambda: _was_repaired(browser), "the repair to find a code")
        yield made
        made.close()


@pytest.fixture
def site(app: Site, simulator: Simulator) -> Iterator[Site]:
    yield app
    state(Path.cwd(), "DELETE FROM scan_links")
    simulator.clear_faults()
    simulator.put_channel("loja", session="unpaired", status="qr_required")
    app.clock.ahead += 6.0  # nobody looks any more
    wait_until(lambda: not _asking(), "the asking to end")
    app.clock.ahead += 60.0  # and nothing was scanned a moment ago


def _asking() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "qr"]


def _was_repaired(browser: FlaskClient) -> bool:
    """Return whether the repair has ended: until then it calls the gateway too."""
    found = browser.get("/api/channels/loja", headers=_BEARER)
    last = found.get_json()["last_attempt"] if found.status_code == 200 else None
    return last is not None and last["outcome"] == "qr_required"


def _share(site: Site, **body: Any) -> dict[str, Any]:
    answer = site.browser().post("/api/scan-links/loja", json=body, headers=_BEARER)
    assert answer.status_code == 201, answer.get_data(as_text=True)
    made: dict[str, Any] = answer.get_json()
    return made


def _path(link: dict[str, Any]) -> str:
    path = str(link["url"]).removeprefix(_ADDRESS)
    assert re.fullmatch(r"/scan/[\w-]{32}", path), "192 bits"
    return path


def _links(site: Site) -> list[dict[str, Any]]:
    listed = site.browser().get("/api/scan-links", headers=_BEARER).get_json()["links"]
    assert isinstance(listed, list)
    return listed


def test_a_link_is_made_opened_seen_and_ended(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    link = _share(site, hours=1, name="balcão")
    path = _path(link)
    assert link["expires_at"] - link["created_at"] == 3600
    visitor = site.browser()
    page = visitor.get(path, headers={"Accept-Language": "pt-BR"})
    assert page.status_code == 200
    assert "Conectar o WhatsApp" in page.get_data(as_text=True)
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    assert path not in re.findall("<title>.*</title>", page.get_data(as_text=True))[0]
    assert _links(site)[0]["opens"] == 0, "a messenger fetches it for a preview"
    wait_until(lambda: visitor.get(f"{path}/live").get_json()["state"] == "code", "the code")
    image = visitor.get(f"{path}/qr")
    assert image.mimetype == "image/png"
    assert image.headers["Cache-Control"] == "no-store"
    (listed,) = _links(site)
    assert (listed["name"], listed["opens"]) == ("balcão", 1)
    assert listed["opened_at"] >= listed["created_at"]
    end = f"/api/scan-links/{link['id']}"
    assert site.browser().delete(end, headers=_BEARER).status_code == 204
    assert site.browser().delete(end, headers=_BEARER).status_code == 404
    assert visitor.get(path).status_code == 404
    assert visitor.get(f"{path}/live").status_code == 404
    assert _links(site) == []
    used = [line for line in log_lines(Path.cwd()) if f"link={link['id']}" in line]
    outcomes = [re.findall("outcome=([a-z]+)", line)[0] for line in used]
    assert outcomes == ["created", "opened", "revoked"]
    assert all("action=scan_link" in line for line in used)
    assert all("name=balcão address=127.0.0.1" in line for line in used)
    token = path.rpartition("/")[2]
    kept = [file.read_bytes() for file in Path.cwd().rglob("*") if file.is_file()]
    assert not any(token.encode() in one for one in [*kept, caplog.text.encode()])


def test_a_status_link_shows_how_it_is_and_nothing_else(
    site: Site, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = Shares(0.99999, 0.9876, 30.0, dropped_at=1_770_000_000.0, connected_at=1_770_003_600.0)
    monkeypatch.setattr(ConnectedShares, "of", lambda *_: shares)
    seen = {}
    for channel, name in (("loja", "Atendimento"), ("oficina", "")):
        body = {"kind": "status", "hours": 8760, "name": name}
        answer = site.browser().post(f"/api/scan-links/{channel}", json=body, headers=_BEARER)
        path = _path(answer.get_json())
        visitor = site.browser()
        seen[channel] = visitor.get(path).get_data(as_text=True)
        for more in ("live", "qr"):
            assert visitor.get(f"{path}/{more}").status_code == 404
        assert visitor.post(f"{path}/pair", data={"phone": "+55 29 91234-5678"}).status_code == 404
    assert "WhatsApp: Atendimento" in seen["loja"]
    assert "loja" not in seen["loja"]
    assert "the-gateway" not in seen["loja"] + seen["oficina"]
    assert "Disconnected" in seen["loja"]
    assert 'datetime="2026-02-02T03:40:00Z"' in seen["loja"]
    assert "/page.js" in seen["loja"], "it converts the time to the visitor's zone"
    assert "WhatsApp: oficina" in seen["oficina"]
    assert "Connected" in seen["oficina"]
    assert 'datetime="2026-02-02T02:40:00Z"' in seen["oficina"]
    assert "99.99% of 24 h · 98.76% of 30 days" in seen["oficina"]
    assert not _asking(), "a status needs no code"
    assert {one["kind"] for one in _links(site)} == {"status"}
    # A hook of an older version beside this one would show the code, if it found them.
    hashes = [one for (one,) in state(Path.cwd(), "SELECT token_hash FROM scan_links")]
    assert not any(re.fullmatch("[0-9a-f]+", one) for one in hashes)
    assert {one["opens"] for one in _links(site)} == {1}


@pytest.mark.parametrize("more", ["/live", "/qr", "/qr?7"])
def test_who_comes_back_has_opened_a_link_again(
    site: Site, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way the code is looked at, and without the page."""
    monkeypatch.setattr(QrWatches, "look", lambda *_: (QrState.ASKING, 0))
    link = _share(site)
    for seconds in (0.0, 500.0, 500.0, 700.0):
        site.clock.ahead += seconds
        site.browser().get(_path(link) + more)
    assert _links(site)[0]["opens"] == 2
    opened = [line for line in log_lines(Path.cwd()) if f"opened link={link['id']}" in line]
    assert len(opened) == 2


def test_whatever_is_wrong_with_a_token_looks_the_same(site: Site) -> None:
    expired, revoked = _share(site), _share(site)
    statement = "UPDATE scan_links SET expires_at = 1 WHERE id = :id"
    state(Path.cwd(), statement, id=expired["id"])
    site.browser().delete(f"/api/scan-links/{revoked['id']}", headers=_BEARER)
    statements: list[str] = []

    def note(*event: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # the hook has its own
            statements.append(event[2])

    answers = set()
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        for path in (_path(expired), _path(revoked), f"/scan/{_WRONG}", "/scan/x", "/scan/%C3%A9"):
            for more in ("", "/live", "/qr"):
                statements.clear()
                answer = site.browser().get(path + more)
                same = answer.get_data(as_text=True).replace(path + more, "")
                headers = tuple(sorted(answer.headers.items()))
                answers.add((answer.status_code, same, headers, tuple(statements)))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    # From the sixth on it says when to come back, and its length is that of its own address.
    kept = {(code, body, statements) for code, body, _, statements in answers}
    assert len(kept) == 1
    assert {code for code, *_ in answers} == {404}


def test_a_thousand_guesses_are_slowed_down_and_the_right_token_goes_on(site: Site) -> None:
    path = _path(_share(site))
    browser = site.browser()
    browser.get(path)
    answers = [browser.get(f"/scan/{number:032}") for number in range(1000)]
    assert {answer.status_code for answer in answers} == {404}
    assert ["Retry-After" in answer.headers for answer in answers] == [False] * 5 + [True] * 995
    assert browser.get(path).status_code == 200


def test_a_visitor_reaches_nothing_else(site: Site) -> None:
    """Every route, with the token as cookie, as bearer token, as password and in its place."""
    path = _path(_share(site, name="only for the operator"))
    token = path.rpartition("/")[2]
    tried, known = 0, len(log_lines(Path.cwd()))
    for rule in site.app.url_map.iter_rules():
        for way in ("cookie", "bearer", "password", "none"):
            visitor = site.browser()
            visitor.get(path)
            if way == "cookie":
                visitor.set_cookie("zapwatch", token)
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                answer = _try(visitor, rule, method, token, way)
                tried += 1
                _look_at(answer, rule, method)
                answer.close()
    assert tried > 100
    log = "".join(log_lines(Path.cwd())[known:])
    assert "channel=oficina" not in log, "it had nothing done"


def _try(visitor: FlaskClient, rule: Rule, method: str, token: str, way: str) -> TestResponse:
    values = {
        "channel": "oficina",
        "token": token,
        "filename": "page.js",
        "link": token,
        "page": "page",
    }
    path = rule.rule
    for name in rule.arguments:
        path = re.sub(rf"<([^<>]*:)?{name}>", values[name], path)
    headers = {"Authorization": f"Bearer {token}"} if way == "bearer" else {}
    auth = ("visitor", token) if way == "password" else None
    return visitor.open(path, method=method, headers=headers, auth=auth, data={"token": token})


_FOR_ANYBODY = {
    "metrics_page",
    "openapi",
    "healthy",
    "ready",
    "page.login_form",
    "page.static",
    "page.docs",
}


def _look_at(answer: TestResponse, rule: Rule, method: str) -> None:
    body = answer.get_data().decode("utf-8", "replace")
    if rule.endpoint in _FOR_ANYBODY or rule.endpoint == "scan.static":
        return
    if rule.endpoint.startswith("scan."):
        # The first to ask for a pairing code with no number is refused, later ones too.
        assert answer.status_code in {200, 400}, rule
        for hidden in ("oficina", "the-gateway", "only for the operator", "metrics", "/channels"):
            assert hidden not in body, rule
        return
    assert answer.status_code in {303, 401, 403, 429}, f"{method} {rule}"
    if answer.status_code == 303:
        assert answer.headers["Location"].startswith("/login")
    assert "the-gateway" not in body, rule


def test_fifty_visitors_make_no_more_calls_than_one(site: Site, simulator: Simulator) -> None:
    path = _path(_share(site))
    simulator.fault("qr", "hang")
    simulator.clear_requests()
    visitors = [site.browser() for _ in range(50)]
    for visitor in visitors:
        visitor.get(path)
    asked = {call["operation"] for call in simulator.requests()}
    assert asked <= {"list"}, "the page alone does not ask"
    for _ in range(2):
        for visitor in visitors:
            visitor.get(f"{path}/live")
    site.browser().get("/live/qr/loja", headers=_BEARER)
    wait_until(lambda: bool(simulator.requests("qr")), "the call")
    assert len(simulator.requests("qr")) == 1
    simulator.clear_faults()


def test_a_scan_is_seen_by_visitor_and_operator(site: Site, simulator: Simulator) -> None:
    path = _path(_share(site))
    visitor, operator = site.browser(), site.browser()
    wait_until(lambda: visitor.get(f"{path}/live").get_json()["state"] == "code", "the code")
    simulator.scan("loja")
    seen = lambda: visitor.get(f"{path}/live").get_json()["state"] == "connected"  # noqa: E731
    wait_until(seen, "the scan to be seen")
    answer = operator.get("/live/qr/loja", headers=_BEARER).get_json()
    assert answer["state"] == "connected"


@pytest.mark.parametrize(
    "body",
    [
        {"hours": 2},
        {"hours": "24"},
        {"hours": True},
        {"name": "a\nb"},
        {"name": "x" * 61},
        {"name": 7},
        {"hours": 8760},
        {"kind": "status", "hours": 24},
        {"kind": "both"},
        {"kind": 1},
    ],
    ids=str,
)
def test_what_cannot_be_a_link_is_refused(site: Site, body: dict[str, Any]) -> None:
    answer = site.browser().post("/api/scan-links/loja", json=body, headers=_BEARER)
    assert answer.status_code == 400


def test_links_of_a_channel_are_bounded_and_of_an_unknown_one_there_are_none(site: Site) -> None:
    browser = site.browser()
    for _ in range(MOST_LINKS):
        _share(site)
    full = browser.post("/api/scan-links/loja", json={}, headers=_BEARER)
    assert full.status_code == 409
    state(Path.cwd(), "UPDATE scan_links SET expires_at = 1")
    _share(site)
    assert state(Path.cwd(), "SELECT COUNT(*) FROM scan_links")[0][0] == 1, "and the old ones go"
    unknown = browser.post("/api/scan-links/nobody", json={}, headers=_BEARER)
    assert unknown.status_code == 404


@pytest.mark.parametrize(("channel", "shown"), [("gone", "none"), ("obra", "connected")])
def test_no_code_is_asked_for_by_a_link_of_a_channel_that_needs_none(
    site: Site, simulator: Simulator, channel: str, shown: str
) -> None:
    """Of one that is listed no more, one gateway would make a session."""
    path = _path(_share(site))
    simulator.put_channel("obra")
    state(Path.cwd(), "UPDATE scan_links SET channel = :channel, key = :channel", channel=channel)
    simulator.clear_requests()
    visitor = site.browser()

    def seen() -> bool:
        site.clock.ahead += 11.0
        return bool(visitor.get(f"{path}/live").get_json()["state"] == shown)

    wait_until(seen, "the page to know the channel")
    visitor.get(f"{path}/qr")
    if channel == "gone":
        asked = visitor.post(f"{path}/pair", data={"phone": "+55 00 90000-0001"})
        assert asked.status_code == 404
    wait_until(lambda: not _asking(), "the asking to end")
    assert {call["operation"] for call in simulator.requests()} <= {"list"}


def test_a_link_that_has_expired_is_forgotten_within_an_hour(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(5)
    ScanLinks(world.hook.database).create(GATEWAY, "loja", "balcão", 1)

    def kept() -> int | None:
        with world.hook.database.read() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(scan_links))

    assert kept() == 1
    for _ in range(2):
        world.skip(3600)
        world.run(5)
    assert kept() == 0
    world.close()


def test_a_fault_of_the_hook_itself_does_not_tell_the_token(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = _path(_share(site))

    def fail(*_: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr(QrWatches, "look", fail)
    assert site.browser().get(f"{path}/live").status_code == 500
    assert "internal error" in caplog.text
    assert path not in caplog.text


def test_the_number_that_the_gateway_tells_is_filled_in_for_the_operator_alone(
    site: Site, simulator: Simulator
) -> None:
    """WAHA tells the number of a paired session: it is what the last list before has shown."""
    simulator.put_channel("vendas")
    operator = site.browser()
    operator.post("/login", data={"token": TOKEN})

    def status() -> object:
        site.clock.ahead += 11.0
        answer = operator.get("/api/channels/vendas")
        return answer.get_json().get("status")

    wait_until(lambda: status() == "connected", "the list")
    simulator.unpair("vendas")
    operator.post("/api/reconnect/vendas")
    wait_until(lambda: status() == "needs-scan", "the repair to find a code")
    number = simulator.number("vendas")
    page = operator.get("/channels/vendas").get_data(as_text=True)
    assert f'value="+{number}"' in page
    made = operator.post("/api/scan-links/vendas", json={}).get_json()
    seen = site.browser().get(_path(made)).get_data(as_text=True)
    assert f"The number of this channel ends in {number[-4:]}." in seen
    assert number[:-4] not in seen
    kept = [file.read_bytes() for file in Path.cwd().rglob("*") if file.is_file()]
    assert not any(number.encode() in one for one in kept)
    simulator.remove("vendas")


def test_the_dialog_makes_and_ends_links_without_a_script(site: Site) -> None:
    operator = site.browser()
    operator.post("/login", data={"token": TOKEN})
    assert "/share/loja" in operator.get("/channels/loja").get_data(as_text=True)
    form = {"name": "balcão", "hours": "24"}
    made = operator.post("/share/loja", data=form).get_data(as_text=True)
    address = re.findall(rf'value="({_ADDRESS}/scan/[^"]+)"', made)[0]
    assert "https://wa.me/?text=" in made
    assert site.browser().get(address.removeprefix(_ADDRESS)).status_code == 200
    shown = operator.get("/share/loja").get_data(as_text=True)
    assert "balcão" in shown
    assert address not in shown, "it is shown once"
    (link,) = _links(site)
    operator.post("/unshare/loja", data={"link": link["id"]})
    assert _links(site) == []
    assert operator.post("/share/loja", data={"hours": "3"}).status_code == 400
    for path in ("/share/nobody", "/pair/nobody"):
        form = {"hours": "1", "phone": "+5500000000001"}
        assert operator.post(path, data=form).status_code == 404
