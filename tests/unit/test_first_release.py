"""What the first release was set up with, and what it wrote, still works. Not to be changed."""

from __future__ import annotations

import re
from pathlib import Path

from reconnect_hook.event_log import EventLog
from zapwatch.channels import Channel, Status
from zapwatch.config import load

# Its .env.example (commit bf428fc), filled in as an operator would.
_ENV = r"""
# The gateway
WPP_GATEWAY_BASE_URL=https://gateway.example.com:8443
WPP_GATEWAY_SECRET=0123456789abcdef0123456789abcdef
INFRA_SECRET_KEY=
WPP_GATEWAY_NAME=wpp
WPP_GATEWAY_TIMEOUT=90
WPP_GATEWAY_QR_TIMEOUT=60

DB_HOST=localhost
DB_PORT=3306
DB_NAME=pixel_hub
DB_USER=zapwatch
DB_PASS="p#ss\word$"
DB_CHARSET=utf8mb4
MESSAGE_LOG_URL=

SILENT_HOURS=4
SILENT_HOURS_OVERRIDES=imobsites=72,loja=1.5
MESSAGE_LOOKBACK_HOURS=168

EXPORTER_LISTEN=127.0.0.1:9861
EXPORTER_POLL_SECONDS=5

HOOK_LISTEN=127.0.0.1:9862
HOOK_TOKEN=a-token
HOOK_STATE_URL=sqlite:///var/reconnect-hook.sqlite3
HOOK_LOG_FILE=logs/healthcheck-sessions.log

RECONNECT_COOLDOWN_SECONDS=300
RECONNECT_WORKERS=4
RECONNECT_VERIFY_SECONDS=60
RECONNECT_ALLOW_RESTART=false
"""
_LINE = (
    "2026-02-09T08:15:02-03:00 [healthcheck-sessions] channel=pixel12digital reason=disconnected "
    "action=getQr outcome=reconnected attempt=1 seconds=3.2\n"
)
# By which its users' scripts may read the log.
_PAIRS = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d \[healthcheck-sessions\] "
    r"channel=(\S+) reason=(\S+) action=(\S+) outcome=(\S+) attempt=(\d+) seconds=([\d.]+)\n"
)


def test_its_settings_mean_what_they_meant(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(_ENV)
    settings = load(str(file), {})
    (gateway,) = settings.gateways
    assert (gateway.name, gateway.type, gateway.base_url) == (
        "wpp",
        "wrapper",
        "https://gateway.example.com:8443",
    )
    assert gateway.secret == "0123456789abcdef0123456789abcdef"
    channels = (Channel(name, Status.CONNECTED) for name in ("Imob Sites", "loja", "other"))
    thresholds = [gateway.silence_threshold(channel) for channel in channels]
    assert thresholds == [72 * 3600, 1.5 * 3600, 4 * 3600]
    log = gateway.message_log_url
    assert log is not None
    assert (log.host, log.database, log.username) == ("localhost", "pixel_hub", "zapwatch")
    assert log.password == r"p#ss\word$"
    assert str(settings.exporter_listen) == "127.0.0.1:9861"
    assert str(settings.hook_listen) == "127.0.0.1:9862"
    assert settings.hook_token == "a-token"
    assert str(settings.hook_state_url) == "sqlite:///var/reconnect-hook.sqlite3"
    assert settings.hook_log_file == Path("logs/healthcheck-sessions.log")
    assert not gateway.allow_restart


def test_its_log_goes_on_in_the_same_form(tmp_path: Path) -> None:
    file = tmp_path / "healthcheck-sessions.log"
    file.write_text(_LINE)
    EventLog(file).write(
        channel="pixel12digital",
        reason="disconnected",
        action="getQr",
        outcome="reconnected",
        attempt=2,
        seconds="3.2",
        detail=None,
    )
    old, new = file.read_text().splitlines(keepends=True)
    assert old == _LINE
    for line, attempt in ((old, "1"), (new, "2")):
        found = _PAIRS.fullmatch(line)
        assert found
        assert found.groups() == (
            "pixel12digital",
            "disconnected",
            "getQr",
            "reconnected",
            attempt,
            "3.2",
        )
