"""The settings that count: what is shown of them, and what is called unsafe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from tests.support.pixelhub import encrypt
from zapwatch.config import Settings, compare, describe, load, merge, parse
from zapwatch.config.readers import fingerprint
from zapwatch.config.report import main
from zapwatch.config.settings import SECRETS, SETTINGS

_LEAST = {
    "WPP_GATEWAY_BASE_URL": "https://gateway.example.com:8443",
    "WPP_GATEWAY_SECRET": "not-a-real-secret",
    "HOOK_TOKEN": "not-a-real-token",
    "MESSAGE_LOG_URL": "none",
}


def _load(**environ: str) -> Settings:
    return load(os.devnull, {**_LEAST, **environ})


def _rows(settings: Settings) -> dict[str, tuple[str, str]]:
    return {name: (value, origin) for name, value, origin in describe(settings).settings}


def _write(path: Path, values: Mapping[str, str], mode: int = 0o600) -> str:
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    path.chmod(mode)
    return str(path)


def test_every_setting_is_shown_once_with_its_default() -> None:
    names = [name for name, _, _ in describe(_load()).settings]
    assert names == [row.name for row in SETTINGS]
    rows = _rows(_load())
    for row in SETTINGS:
        if row.name not in _LEAST and not row.secret:
            assert rows[row.name] == (row.default or "", "default")


def test_a_value_is_shown_with_where_it_comes_from(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of-a-file\n")
    theirs = _write(tmp_path / "pixelhub.env", {"DB_HOST": "h", "DB_USER": "u"})
    ours = _write(tmp_path / ".env", {"DB_USER": "reader", "WPP_GATEWAY_SECRET_FILE": str(secret)})
    environ = {name: _LEAST[name] for name in ("WPP_GATEWAY_BASE_URL", "HOOK_TOKEN")}
    rows = _rows(load(ours, environ, pixelhub_env=theirs))
    assert rows["DB_HOST"] == ("h", theirs)
    assert rows["DB_USER"] == ("reader", ours)
    assert rows["WPP_GATEWAY_BASE_URL"][1] == "the environment"
    assert rows["WPP_GATEWAY_SECRET"] == (fingerprint("of-a-file"), f"{secret}, which {ours} names")
    assert rows["PIXELHUB_ENV"] == (theirs, "--pixelhub-env")


@pytest.mark.parametrize("url", ["none ", "hidden", "mysql://u:hidden@h:x/d"])
def test_a_log_that_does_not_count_may_have_any_url(url: str) -> None:
    shown = _rows(_load(MESSAGE_LOG_URL=url, MESSAGE_SOURCE="activity"))["MESSAGE_LOG_URL"][0]
    assert shown == ("none" if url == "none " else fingerprint(url))


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_shown(name: str) -> None:
    web = name in {"HEARTBEAT_URL", "MESSAGE_REPLAY_URL"}
    url = name.endswith("_URL") and not web
    value = "mysql://u:hidden-one@db.example.com/d?ssl_key=hidden-two" if url else "hidden-secret"
    if web:
        value = "https://heartbeat.example.com/hidden"
    user = {f"{name.removesuffix('PASSWORD')}USER": "u"} if name.endswith("_PASSWORD") else {}
    settings = _load(**{name: value}, **user)
    report = describe(settings)
    assert "hidden" not in f"{settings} {report}"
    assert "hidden" not in str(report.as_json())
    assert fingerprint("hidden-one" if url else value) in str(report) or (name == "DB_PASS")


def test_a_secret_is_shown_as_it_is_sent() -> None:
    stored = encrypt("not-a-real-secret", "infra", bytes(16))
    rows = _rows(_load(WPP_GATEWAY_SECRET=stored, INFRA_SECRET_KEY="infra"))
    assert rows["WPP_GATEWAY_SECRET"][0] == fingerprint("not-a-real-secret")


def test_no_number_is_shown() -> None:
    rows = _rows(_load(PROBE_ECHO_NUMBERS="loja=5500000000001, obra=5500000000002"))
    assert rows["PROBE_ECHO_NUMBERS"][0] == "loja, obra"


def _several(tmp_path: Path, **more: str) -> Settings:
    (tmp_path / "key").write_text("hidden-key-of-a-file\n")
    (tmp_path / "key").chmod(0o644)
    file = tmp_path / "gateways.yaml"
    file.write_text(
        "gateways:\n"
        "- {name: a, type: waha, url: 'https://a.example.com', secret: hidden-key-of-a,"
        " silent_hours: 2, ignore: [loja], probe_overrides: {obra: off},"
        " messages_token: ' hidden-token-of-a ', timeout: }\n"
        f"- {{name: b, type: evolution, url: 'https://b.example.com',"
        f" secret_file: {tmp_path}/key, message_log_url: 'mysql://u:hidden@h/d'}}\n"
    )
    file.chmod(0o600)
    environ = {"GATEWAYS_FILE": str(file), "MESSAGE_SOURCE": "log", **more}
    return load(
        os.devnull, {"MESSAGE_LOG_URL": "none", "HOOK_TOKEN": "not-a-real-token", **environ}
    )


def test_of_several_gateways_each_shows_what_its_entry_says(tmp_path: Path) -> None:
    file = str(tmp_path / "gateways.yaml")
    rows = _rows(_several(tmp_path))
    assert rows["a: type"] == ("waha", file)
    assert rows["a: silent_hours"] == ("2", file)
    assert rows["a: ignore"] == ("loja", file)
    assert rows["a: timeout"] == ("90", file)
    assert rows["a: probe_overrides"] == ("obra=off", file)
    assert rows["a: secret"] == (fingerprint("hidden-key-of-a"), file)
    assert rows["a: messages_token"] == (fingerprint("hidden-token-of-a"), file)
    assert rows["b: secret"] == (
        fingerprint("hidden-key-of-a-file"),
        f"{tmp_path}/key, which {file} names",
    )
    assert rows["b: message_log_url"][0].startswith("mysql://u:***@h/d (password: 6 char")
    assert "b: silent_hours" not in rows
    assert "WPP_GATEWAY_SECRET" not in rows


@pytest.mark.parametrize(
    ("values", "unsafe"),
    [
        ({"HOOK_TOKEN": "not-a-real-secret"}, "HOOK_TOKEN and WPP_GATEWAY_SECRET are the same"),
        ({"MESSAGES_TOKEN": "not-a-real-token"}, "HOOK_TOKEN and MESSAGES_TOKEN are the same"),
        ({"INFRA_SECRET_KEY": "not-a-real-token"}, "HOOK_TOKEN and INFRA_SECRET_KEY are the same"),
        ({"HOOK_TOKEN": "short"}, "HOOK_TOKEN can be guessed: take a random one"),
        ({"HOOK_TOKEN": "a" * 32}, "HOOK_TOKEN can be guessed: take a random one"),
        ({"HOOK_LISTEN": "0.0.0.0:9862"}, "HOOK_LISTEN is 0.0.0.0:9862: other machines"),
        ({"HOOK_LISTEN": "[::]:9862"}, "HOOK_LISTEN is [::]:9862: other machines"),
        ({"EXPORTER_LISTEN": "10.0.0.1:9861"}, "EXPORTER_LISTEN is 10.0.0.1:9861: other machines"),
        ({"WPP_GATEWAY_BASE_URL": "http://g.example.com"}, "http://g.example.com has no TLS"),
        ({"MESSAGE_REPLAY_URL": "http://c.example.com/x"}, "MESSAGE_REPLAY_URL of wpp has no TLS"),
        (
            {
                "PROMETHEUS_URL": "http://p.example.com",
                "PROMETHEUS_USER": "zapwatch",
                "PROMETHEUS_PASSWORD": "not-a-real-password",
            },
            "http://p.example.com has no TLS: its password",
        ),
    ],
)
def test_what_is_unsafe_is_told_in_one_line(values: dict[str, str], unsafe: str) -> None:
    [line] = describe(_load(**values)).unsafe
    assert line.startswith(unsafe)
    assert "\n" not in line
    assert not any(secret in line for secret in ("not-a-real-secret", "not-a-real-token"))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"HOOK_LISTEN": "127.0.0.2:9862", "EXPORTER_LISTEN": "[::1]:9861"},
        {"HOOK_LISTEN": "0.0.0.0:9862", "HOOK_TRUSTED_PROXY": "10.0.0.1"},
        {"WPP_GATEWAY_BASE_URL": "http://localhost:8443"},
    ],
)
def test_what_is_safe_is_not(values: dict[str, str]) -> None:
    assert describe(_load(**values)).unsafe == ()


@pytest.mark.parametrize("mode", [0o644, 0o606, 0o602])
def test_a_file_with_secrets_that_everybody_may_read_is_unsafe(tmp_path: Path, mode: int) -> None:
    path = _write(tmp_path / ".env", _LEAST, mode)
    [line] = describe(load(path, {})).unsafe
    assert line.startswith(f"{path} holds secrets")
    path = _write(tmp_path / ".env", _LEAST, 0o640)
    assert not describe(load(path, {})).unsafe
    path = _write(tmp_path / ".env", {"SILENT_HOURS": "4"}, mode)
    assert not describe(load(path, _LEAST)).unsafe


def test_files_that_gateways_yaml_names_are_looked_at_too(tmp_path: Path) -> None:
    [line] = describe(_several(tmp_path)).unsafe
    assert line.startswith(f"{tmp_path}/key holds secrets")


def test_what_a_program_cannot_do_without_is_a_notice() -> None:
    report = describe(_load(HOOK_TOKEN="", MESSAGE_SOURCE="events"))
    assert [line.partition(":")[0] for line in report.notices] == [
        "HOOK_TOKEN is not set",
        "HEARTBEAT_URL is not set",
        "MESSAGES_TOKEN of wpp is not set",
    ]


def test_after_a_reload_the_program_is_shown_as_it_was_started(tmp_path: Path) -> None:
    before = load(_write(tmp_path / ".env", {"EXPORTER_POLL_SECONDS": "1"}), _LEAST)
    path = _write(tmp_path / ".env", {"EXPORTER_POLL_SECONDS": "2", "SILENT_HOURS": "9"})
    now = merge(before, load(path, _LEAST))
    rows = _rows(now)
    assert rows["EXPORTER_POLL_SECONDS"][0] == "1"
    assert (now.exporter_poll_seconds, now.gateways[0].silent_hours) == (1, 9)
    assert rows["SILENT_HOURS"] == ("9", path)
    changes = compare(before, load(path, _LEAST))
    assert changes == "changed wpp (silent_hours); only a restart changes EXPORTER_POLL_SECONDS"


def test_every_program_wide_value_is_a_setting() -> None:
    names = {field.name.upper() for field in fields(Settings)} - {"GATEWAYS", "SOURCES"}
    assert names <= {row.name for row in SETTINGS}
    assert parse(_LEAST).sources.values == _LEAST


def test_the_command_prints_it_and_ends_with_2_where_something_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in _LEAST:
        monkeypatch.delenv(name, raising=False)
    path = _write(tmp_path / ".env", _LEAST, 0o644)
    assert main(["--env-file", path]) == 0
    shown = capsys.readouterr().out
    assert "WPP_GATEWAY_BASE_URL" in shown
    assert f"unsafe: {path} holds secrets" in shown
    assert "not-a-real" not in shown
    path = _write(tmp_path / ".env", {**_LEAST, "SILENT_HOURS": "soon"})
    with pytest.raises(SystemExit) as ended:
        main(["--env-file", path])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("config: SILENT_HOURS must be a number")
