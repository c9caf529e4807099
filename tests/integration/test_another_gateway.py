"""docs/gateways/README.md, "Another one", followed step by step with a gateway that is made up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from demo.configuration import ROOT
from reconnect_hook.dashboard.qr import QrState, QrWatches
from tests.support.http_servers import HttpServer
from tests.support.programs import run_here
from tests.support.waiting import wait_until
from zapwatch.config import parse
from zapwatch.gateways.registry import adapter_of, make_gateway
from zapwatch.messages.message import parse_event

_SECRET = "not-a-real-secret"


class MadeUp(HttpServer):
    """A made-up gateway: its sessions with their states, and those that were started."""

    def __init__(self) -> None:
        self.states = {"bem": "open", "caiu": "closed", "sem par": "closed"}
        self.started: list[str] = []
        super().__init__()

    def answer(
        self, asked: tuple[str, str], _: bytes, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        status, body = self._answer(*unquote(asked[1]).strip("/").split("/"))
        if headers.get("X-Api-Key") != _SECRET:
            status, body = 401, {"error": "wrong key"}
        return status, "application/json", json.dumps(body).encode()

    def _answer(self, _: str, session: str = "", call: str = "") -> tuple[int, object]:
        if not session:
            return 200, {"sessions": [{"name": k, "state": v} for k, v in self.states.items()]}
        if call == "start":
            self.started.append(session)
            self.states[session] = "scan" if session == "sem par" else "open"
            return 200, {}
        assert call == "qr"
        if self.states[session] != "scan":
            return 409, {"error": "it is paired"}
        return 200, {"image": "iVBORw0KGgo="}


def test_a_gateway_is_added_by_a_description_of_at_most_40_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "gateways" / "README.md").read_text()
    section = page.partition("\n## Another one\n")[2]
    found = re.findall(r"^   ```(\w+)\n(.*?)^   ```$", section, re.DOTALL | re.MULTILINE)
    blocks = [(kind, re.sub("^   ", "", text, flags=re.MULTILINE)) for kind, text in found]
    types, gateways = (text for kind, text in blocks if kind == "yaml")
    describe, look, repair, post = (text.strip() for kind, text in blocks if kind == "sh")

    def follow(command: str) -> list[str]:
        program, _, *arguments = command.split()
        assert program == ".venv/bin/python"
        return run_here(tmp_path, *arguments, settings={}).stdout.splitlines()

    with MadeUp() as server:
        assert len(types.splitlines()) <= 40
        (tmp_path / "types.yaml").write_text(types)
        for example, real in {
            "http://127.0.0.1:3000": f"http://{server.at}",
            "put-its-secret-here": _SECRET,
        }.items():
            assert example in gateways
            gateways = gateways.replace(example, real)
        (tmp_path / "gateways.yaml").write_text(gateways)
        # What is not of this page: how long a repair may take.
        (tmp_path / ".env").write_text("GATEWAYS_FILE=gateways.yaml\nRECONNECT_VERIFY_SECONDS=20\n")

        assert "repair if down        POST /sessions/{id}/start" in "\n".join(follow(describe))
        looked = follow(look)
        assert looked[0] == "3 channels listed"
        assert [line for line in looked if "would call" in line] == [
            "caiu: disconnected; would call POST /sessions/{id}/start",
            "sem par: disconnected; would call POST /sessions/{id}/start",
        ]
        assert not server.started
        repaired = {"caiu: disconnected; reconnected", "sem par: disconnected; qr_required"}
        assert repaired <= {*follow(repair)}

        (gateway,) = parse({"GATEWAYS_FILE": "gateways.yaml"}).gateways
        watches = QrWatches(make_gateway(gateway, observe=lambda *_: None), lambda _: None)
        wait_until(lambda: watches.look("sem par")[0] is QrState.CODE, "the code")
        assert watches.image("sem par") is not None
        server.states["sem par"] = "open"
        wait_until(lambda: watches.look("sem par")[0] is QrState.CONNECTED, "the scan")

    event = post.split("'")[-2].encode()
    (message,) = parse_event(adapter_of(gateway).read_event, event, 1_770_000_000.0)
    assert message.key == "shop"
