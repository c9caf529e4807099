"""Fuzzing of a hook with thousands of requests: its answers, log and calls."""

from __future__ import annotations

import base64
import itertools
import json
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from demo.simulator.server import SimulatorServer
from tests.support.alerts import alert, payload
from tests.support.hooks import SECRET, TOKEN, hook_settings
from tests.support.programs import Fork, environment
from tests.support.waiting import TIMEOUT, wait_until
from zapwatch.channels import channel_key, key_meant

_CHANNELS = ("loja", "Pixel12 Digital", "ação/1")
_NEVER_NAMED = "never named"
_OPENAPI = Path(__file__).parents[2] / "reconnect_hook" / "openapi.yaml"
_CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "ignored_auth"),
)
_METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"]
_PATHS = (
    "/", "/alerts", "/metrics", "/-/healthy", "/-/ready", "/-/settings", "/login", "/openapi.yaml",
    "/api/channels", "/api/channels/loja", "/api/attempts/loja", "/api/pause/loja", "/channels/x",
    "/live/channels", "/live/qr/loja", "/qr/loja", "/page/page.css", "/messages/wpp", "/messages/x",
)  # fmt: skip
_ODD_ENDS = (
    *("", "", "", "/", "//", "/../..", "%00", "%ff", "%0d%0a"),
    *("?gateway=%00", "?since=9e9", "?a[]"),
)
_ODD_HEADERS = (
    *(b"http://[", b"\xff", b"null", b"zapwatch=x", b'";=,'),
    *(b"//evil.example.com", b"a" * 9000),
)
_STRANGE: tuple[Any, ...] = (
    None, 0, 1e308, True, "", " ", "x" * 300, "../..", "a\nb", "\ud800", "\x00", [], {}, [[]],
    "loja/qr", "http://example.com", "LOJA", "${loja}", {"loja": 1}, "\u202eajol",
)  # fmt: skip


@dataclass
class Findings:
    """Results of a fuzz run."""

    seed: int
    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def count(self, status: int) -> None:
        self.requests += 1
        self.statuses[status] += 1

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.requests} requests, answered {dict(self.statuses)} by hand; "
            f"{len(self.faults)} faults"
        )


def fuzz(folder: Path, *, examples: int, payloads: int, seed: int) -> Findings:
    """Send ``examples`` requests per described operation, and ``payloads`` mutated payloads."""
    findings = Findings(seed)
    with SimulatorServer(SECRET) as simulator:
        for name in _CHANNELS:
            simulator.gateway.put(name, {"session": "dead"})
        settings = hook_settings(simulator.url, HOOK_TRUSTED_PROXY="127.0.0.1")
        with Fork(folder, "reconnect_hook", "serve", settings=settings) as hook:
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            look = partial(requests.get, f"{hook.url}/api/channels", headers=bearer)
            wait_until(lambda: look(timeout=TIMEOUT).ok, "the first list")
            _by_description(hook.url, examples, findings)
            # Schemathesis may have paused listed channels, and may request their repair.
            for name in _CHANNELS:
                url = f"{hook.url}/api/resume/{quote(name, safe='')}"
                requests.post(url, headers=bearer, timeout=TIMEOUT)
            simulator.gateway.put(_NEVER_NAMED, {"session": "dead"})
            deserved = _by_hand(hook.url, payloads, findings)
            _anywhere(hook.url, payloads // 4, findings)
            wait_until(
                lambda: (
                    hook.metrics().get("whatsapp_reconnect_queue_length") == 0
                    and hook.metrics().get("whatsapp_reconnect_in_flight") == 0
                ),
                "all repairs to end",
            )
            said = hook.stderr
        settings |= {"EXPORTER_LISTEN": "127.0.0.1:0", "MESSAGE_SOURCE": "events"}
        settings |= {"MESSAGES_TOKEN": f"{TOKEN}-of-events"}
        with Fork(folder, "exporter", settings=settings) as exporter:
            _anywhere(exporter.url, payloads // 4, findings)
            said += exporter.stderr
        called = {call["channel"] for call in simulator.calls() if call["operation"] != "list"}
        odd = {call["path"] for call in simulator.calls() if call["operation"] == "unknown"}
    findings.faults += [f"called without a reason: {name}" for name in called - deserved]
    findings.faults += [f"not called: {name}" for name in deserved - called]
    findings.faults += [f"called outside of the API: {path}" for path in odd]
    if "Traceback" in said:
        findings.faults.append(f"a traceback:\n{said[said.index('Traceback') :][:2000]}")
    findings.faults += [f"{secret!r} was said" for secret in (SECRET, TOKEN) if secret in said]
    return findings


def _by_description(url: str, examples: int, findings: Findings) -> None:
    """Run Schemathesis on the hook's OpenAPI description."""
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", str(_OPENAPI)),
            *(f"--url={url}", f"--header=Authorization: Bearer {TOKEN}"),
            *(f"--checks={','.join(_CHECKS)}", "--phases=examples,coverage,fuzzing"),
            *(f"--max-examples={examples}", f"--seed={findings.seed}"),
            *("--generation-database=none", "--suppress-health-check=all"),
            *("--warnings=off", "--no-color"),
        ],
        env=environment({"SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks"}),
        capture_output=True,
        text=True,
        check=False,
    )
    counted = re.search(r"(\d+) generated", done.stdout)
    findings.requests += int(counted[1]) if counted else 0
    if done.returncode or not counted:
        findings.faults.append(f"schemathesis:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}")


def _by_hand(url: str, payloads: int, findings: Findings) -> set[str]:
    """Send nearly valid payloads; return the channels that must be called."""
    chance = random.Random(findings.seed)
    deserved: set[str] = set()
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(payloads):
            body = _bend(chance, payload(*(_alert(chance) for _ in range(chance.randrange(4)))))
            right = chance.random() < 0.9
            token = TOKEN if right else chance.choice(["", TOKEN[:-1], TOKEN + "x", "\xff"])
            bearer = f"Bearer {token}".encode("latin-1")
            headers: dict[str, str | bytes] = {"Authorization": bearer, **forwarded()}
            answer = session.post(f"{url}/alerts", body, headers=headers, timeout=TIMEOUT)
            findings.count(answer.status_code)
            wanted = _wanted(body) if right else None
            expected = 401 if not right else 400 if wanted is None else 202
            if answer.status_code != expected:
                findings.faults.append(f"{answer.status_code}, not {expected}: {body[:500]!r}")
            deserved |= wanted or set()
    return deserved


def _anywhere(url: str, wanted: int, findings: Findings) -> None:
    """Send requests without side effects to many paths, with right and wrong tokens."""
    chance = random.Random(findings.seed)
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(wanted):
            right = chance.random() < 0.5
            token = TOKEN if right else chance.choice(["", TOKEN[:-1], "x" * 5000, "\xff"])
            scheme = chance.choice(["Bearer ", "bearer", "Basic ", ""])
            if scheme == "Basic ":
                token = base64.b64encode(f"a:{token}".encode("latin-1")).decode()
            method = chance.choice(_METHODS if right else [*_METHODS, "POST"])
            headers = {"Authorization": f"{scheme}{token}".encode("latin-1")}
            if chance.random() < 0.2:
                name = chance.choice(("Origin", "Cookie", "Accept", "X-Forwarded-Prefix", "Host"))
                headers[name] = chance.choice(_ODD_HEADERS)
            path = chance.choice(_PATHS) + chance.choice(_ODD_ENDS)
            body = _bend(chance, payload(_alert(chance))) if method == "POST" else None
            answer = session.request(
                method, f"{url}{path}", data=body, headers=headers, timeout=TIMEOUT
            )
            findings.count(answer.status_code)
            if answer.status_code >= 500 and answer.status_code != 503:
                findings.faults.append(f"{answer.status_code}: {method} {path} {headers}"[:500])


_addresses = itertools.count(int(ip_address("10.0.0.1")))


def forwarded() -> dict[str, str]:
    """Return the header of a request from another address: wrong tokens are counted by address."""
    return {"X-Forwarded-For": str(ip_address(next(_addresses)))}


def _alert(chance: random.Random) -> Any:
    made = alert(chance.choice(_CHANNELS), chance.choice(["firing", "firing", "resolved"]))
    if chance.random() < 0.7:
        made["labels"][chance.choice(list(made["labels"]))] = chance.choice(_STRANGE)
    if chance.random() < 0.2:
        made[chance.choice(list(made))] = chance.choice(_STRANGE)
    for name in ("generatorURL", "fingerprint"):
        made[name] = chance.choice(["http://127.0.0.1:1/api/channels/x/qr", "file:///etc/passwd"])
    return chance.choice(_STRANGE) if chance.random() < 0.05 else made


def _bend(chance: random.Random, body: bytes) -> bytes:
    """Return the body unchanged, or with some bytes lost or changed."""
    while chance.random() < 0.15:
        at = chance.randrange(len(body) + 1)
        kind = chance.randrange(3)
        middle = bytes([chance.randrange(256)]) if kind else b""
        body = body[:at] + middle + body[at + chance.randrange(1, 4) * (kind != 1) :]
    return body


def _wanted(body: bytes) -> set[str] | None:
    """Return the gateway's channels that a body requests; None if it is no payload."""
    try:
        whole = json.loads(body)
    except ValueError:
        return None
    alerts = whole.get("alerts") if isinstance(whole, dict) else None
    if not isinstance(alerts, list) or whole.get("version") != "4":
        return None
    known = {channel_key(name): name for name in _CHANNELS}
    wanted = set()
    for one in alerts:
        labels = one.get("labels") if isinstance(one, dict) else None
        if not isinstance(labels, dict) or one.get("status") != "firing":
            continue
        named = labels.get("channel")
        if (
            labels.get("remediation") == "reconnect"
            and labels.get("gateway") == "wpp"
            and isinstance(named, str)
            and (key := key_meant(named, known)) is not None
        ):
            wanted.add(known[key])
    return wanted
