"""Every setting: what is read, and the one line that a wrong or missing one gives."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tests.support.certificates import self_signed
from tests.support.hooks import hook_settings
from tests.support.pixelhub import encrypt
from zapwatch.channels import Channel, Status
from zapwatch.config import (
    Listen,
    Settings,
    SettingsError,
    SilenceMode,
    Sources,
    collect,
    hook_link,
    load,
    parse,
    parse_env,
    parse_pixelhub_env,
)
from zapwatch.config.load_gateways import SOCKETS
from zapwatch.config.readers import ProbeKind
from zapwatch.config.settings import SETTINGS
from zapwatch.gateways import NAMED_CHANNELS, TYPES
from zapwatch.gateways.base import ChannelList

_LEAST = {
    "WPP_GATEWAY_BASE_URL": "https://gateway.example.com:8443",
    "WPP_GATEWAY_SECRET": "not-a-real-secret",
    "DB_HOST": "db.example.com",
    "DB_USER": "pixelhub",
    "DB_PASS": "not-a-real-password",
}

_LEAST_SECRET = _LEAST["WPP_GATEWAY_SECRET"]
_SOURCES = (" EVENTS ", " ACTIVITY ", " NONE ")
_LINES = "".join(f"{name}={value}\n" for name, value in _LEAST.items())


def _log(values: Mapping[str, str]) -> sa.URL:
    url = parse({**_LEAST, **values}).gateways[0].message_log_url
    assert url is not None
    return url


def _error(values: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(values)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_the_least_that_must_be_set_brings_the_documented_databases() -> None:
    settings = parse(_LEAST)
    assert _log({}).render_as_string(hide_password=False) == (
        "mysql+pymysql://pixelhub:not-a-real-password@db.example.com:3306/pixel_hub?charset=utf8mb4"
    )
    assert str(settings.hook_state_url) == "sqlite:///var/reconnect-hook.sqlite3"
    assert str(settings.messages_state_url) == "sqlite:///var/messages.sqlite3"


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("WPP_GATEWAY_BASE_URL", "http://h:8443/sub/", "base_url", "http://h:8443/sub"),
        ("WPP_GATEWAY_NAME", "other", "name", "other"),
        ("WPP_GATEWAY_TIMEOUT", "1.5", "timeout", 1.5),
        ("WPP_GATEWAY_QR_TIMEOUT", "2", "qr_timeout", 2),
        ("IGNORE_CHANNELS", " Imob Sites, obra ,", "ignore", {"Imob Sites": True, "obra": True}),
        ("IGNORE_STOPPED", "on", "ignore_stopped", True),
        ("SILENT_HOURS", "0.5", "silent_hours", 0.5),
        (
            *("SILENT_HOURS_OVERRIDES", " Imob Sites=72, loja=1.5 ,"),
            *("silent_hours_overrides", {"Imob Sites": 72, "loja": 1.5}),
        ),
        ("MESSAGE_LOOKBACK_HOURS", "24", "message_lookback_hours", 24),
        ("SILENCE_MODE", "Adaptive", "silence_mode", SilenceMode.ADAPTIVE),
        ("SILENCE_FALSE_ALARMS_PER_MONTH", "0.5", "silence_false_alarms_per_month", 0.5),
        ("SILENCE_FLOOR_MINUTES", "5", "silence_floor_minutes", 5),
        ("SILENCE_CEILING_HOURS", "72", "silence_ceiling_hours", 72),
        ("SILENCE_STATE_FILE", "/tmp/silence", "silence_state_file", Path("/tmp/silence")),
        ("EXPORTER_LISTEN", "[::1]:1", "exporter_listen", Listen("::1", 1)),
        ("EXPORTER_POLL_SECONDS", "0.1", "exporter_poll_seconds", 0.1),
        ("HOOK_LISTEN", "0.0.0.0:65535", "hook_listen", Listen("0.0.0.0", 65535)),
        ("HOOK_TOKEN", "t", "hook_token", "t"),
        ("HOOK_LOG_FILE", "/tmp/x.log", "hook_log_file", Path("/tmp/x.log")),
        ("RECONNECT_COOLDOWN_SECONDS", "0", "reconnect_cooldown_seconds", 0),
        ("RECONNECT_WORKERS", "1", "reconnect_workers", 1),
        ("RECONNECT_VERIFY_SECONDS", "0", "reconnect_verify_seconds", 0),
        ("RECONNECT_ALLOW_RESTART", "Yes", "allow_restart", True),
        ("LOG_LEVEL", "Debug", "log_level", "debug"),
        ("LOG_FORMAT", "json", "log_format", "json"),
    ],
)
def test_a_setting_can_be_set(name: str, text: str, field: str, value: object) -> None:
    settings = parse({**_LEAST, name: text})
    [gateway] = settings.gateways
    assert getattr(gateway if hasattr(gateway, field) else settings, field) == value


def test_the_parts_of_a_database_can_be_set() -> None:
    parts = {"HOST": "h", "PORT": "3307", "NAME": "n", "USER": "u", "PASS": "p"}
    url = _log({"DB_CHARSET": "latin1", **{f"DB_{name}": value for name, value in parts.items()}})
    assert url.render_as_string(hide_password=False) == (
        "mysql+pymysql://u:p@h:3307/n?charset=latin1"
    )


@pytest.mark.parametrize(
    "name", ["WPP_GATEWAY_BASE_URL", "WPP_GATEWAY_SECRET", "DB_HOST", "DB_USER"]
)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_setting_that_is_missing_or_blank_is_named(name: str, value: str | None) -> None:
    values = {k: v for k, v in _LEAST.items() if k != name}
    if value is not None:
        values[name] = value
    assert _error(values).startswith(f"{name} is not set: ")


_WRONG: dict[str, tuple[str, ...]] = {
    "WPP_GATEWAY_BASE_URL": (
        *("gateway.example.com:8443", "ftp://gateway.example.com", "https://", "https://:8443"),
        *("https://gateway.example.com:port", "https://gateway.example.com:99999"),
        *("https://[::1", "https://user@gateway.example.com"),
        *("https://user:hidden@gateway.example.com", "https://gateway.example.com?"),
        *("https://gateway.example.com?a=1", "https://gateway.example.com#a"),
        *("https://gateway.example.com:8443#", "https://gate way.example.com"),
        *("https://gateway.example.com\\api", "https://gateway.example\n.com"),
    ),
    "WPP_GATEWAY_SECRET HOOK_TOKEN MESSAGES_TOKEN": ("gehöim", "two\nlines"),
    "HOOK_EXTERNAL_URL": (
        *("example.com", "ftp://example.com", "https://user:password@example.com"),
        *("https://example.com/a?b", "https://example.com/a#b", "https://example.com/a//b"),
        *("https://example.com/ä", "https://example.com/a%20b"),
    ),
    "WPP_GATEWAY_TIMEOUT WPP_GATEWAY_QR_TIMEOUT SILENT_HOURS MESSAGE_LOOKBACK_HOURS "
    "EXPORTER_POLL_SECONDS": ("0", "-1", "nan", "inf", "soon", "1,5", "4h"),
    "RECONNECT_COOLDOWN_SECONDS RECONNECT_VERIFY_SECONDS": ("-1", "nan", "inf", "soon"),
    "WPP_GATEWAY_NAME": ("two\nlines", "x" * 64),
    "RECONNECT_WORKERS": ("0", "-1", "1.5", "many", "1001", "9" * 5000),
    "RECONNECT_ALLOW_RESTART": ("maybe", "2", "tru"),
    "DB_PORT": ("0", "65536", "-1", "3306.0", "mysql", "9" * 5000),
    "DB_CHARSET": ("klingon",),
    "EXPORTER_LISTEN HOOK_LISTEN": (
        *("9861", ":9861", "localhost", "h:", "h:x", "h:65536", "h:" + "9" * 5000),
    ),
    "HOOK_TRUSTED_PROXY": ("proxy.example.com", "10.0.0.0/8"),
    "SILENT_HOURS_OVERRIDES": (
        *("loja", "loja=", "=4", "loja=0", "loja=-1", "loja=x", "loja=inf", "loja=1e10", " =1"),
    ),
    "SILENCE_MODE": ("learned",),
    "SILENCE_FALSE_ALARMS_PER_MONTH": ("0",),
    "SILENCE_FLOOR_MINUTES": ("0", "1561"),
    "SILENCE_CEILING_HOURS": ("inf",),
    "MESSAGE_LOG_URL HOOK_STATE_URL": (
        *("here", "oracle://u:hidden@h/d", "mysql://u:hidden@h:port/d"),
        *("mysql://u:p@h/d?read_timeout=hidden", "mysql://u:p@h/d?client_flag=hidden"),
        *("mysql://u:p@h/d?plugin=hidden", "mysql://u:p@h/d?read_timeout=1&read_timeout=2"),
        *("sqlite", "/var/x.db"),
    ),
    "MESSAGE_REPLAY": ("sometimes", "auto"),
    "MESSAGE_REPLAY_TOKEN": ("hidden\nX-Header: 1",),
    "MESSAGE_REPLAY_URL": (
        "ftp://crm.example.com/hidden",
        "https://hidden:hidden@crm.example.com/",
        "crm.example.com/hidden",
        "https://crm.example.com/hid den",
    ),
    "PROBE": ("sometimes",),
    "PROBE_OVERRIDES": ("loja", "loja=maybe", "=echo"),
    "PROBE_AFTER_MINUTES PROBE_PAUSE_MINUTES": ("0",),
    "PROBE_ECHOES_PER_DAY": ("0", "1.5"),
    "PROBE_ECHO_NUMBERS": (
        "5500000000001",
        "loja=+5500000000001",
        "loja=55 0000 000 0001",
        "loja=190",
        "loja=5500000000001,obra=5500000000001",
        "loja=5500000000001,loja=5500000000002",
    ),
    "PROBE_ECHO_TEXT": ("two\nlines", "x" * 501),
    "HOOK_LOG_FILE SILENCE_STATE_FILE WEB_CONFIG_FILE": ("a\0b",),
    # Every number has an upper limit.
    " ".join(
        setting.name
        for setting in SETTINGS
        if getattr(getattr(setting.parse, "func", None), "__name__", "") in {"number", "integer"}
    ): ("1e10",),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for names, values in _WRONG.items()
        for name in names.split()
        for value in values
    ],
)
def test_a_wrong_value_is_named_in_one_line(name: str, value: str) -> None:
    line = _error({**_LEAST, name: value})
    assert line.startswith(name)
    assert all(other not in line for other in ("not-a-real", "hidden", "gehöim"))


_URL = "mysql+pymysql://user:password@host/name"
_TEACHES = (
    "SILENCE_MODE is adaptive, which learns from a message log or from events: it cannot learn"
)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"WPP_GATEWAY_TYPE": "telegram"},
            f"WPP_GATEWAY_TYPE must be one of {', '.join(TYPES)}, not 'telegram'",
        ),
        (
            {"MESSAGE_SOURCE": "webhook"},
            "MESSAGE_SOURCE must be one of log, events, activity, none, not 'webhook'",
        ),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL must be debug, info, warning or error, not 'loud'"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT must be logfmt or json, not 'xml'"),
        *(
            (
                {**source, "SILENCE_MODE": "adaptive"},
                f"{_TEACHES} from the message source {name}",
            )
            for name, source in (
                ("none", {"MESSAGE_LOG_URL": "none"}),
                ("none", {"MESSAGE_SOURCE": "none"}),
                ("activity", {"MESSAGE_SOURCE": "activity"}),
            )
        ),
        (
            {"MESSAGE_LOG_URL": _URL.replace("password", "first@second")},
            "MESSAGE_LOG_URL has an @ in its user or password: write it as %40",
        ),
        *(
            (
                {name: f"{_URL}?ssl=true"},
                f"{name} has ssl=: write ssl_ca=FILE, by which the server is verified",
            )
            for name in ("MESSAGE_LOG_URL", "HOOK_STATE_URL")
        ),
        (
            {"MESSAGE_LOG_URL": f"{_URL}?charset=klingon"},
            "MESSAGE_LOG_URL has no MySQL character set, such as utf8mb4, behind charset=",
        ),
        *(
            row
            for name in ("WPP_GATEWAY", "PROMETHEUS", "ALERTMANAGER")
            for row in (
                ({f"{name}_PASSWORD": "x"}, f"{name}_PASSWORD is set, and {name}_USER is not"),
                (
                    {f"{name}_USER": "a:b", f"{name}_PASSWORD": "x"},
                    f"{name}_USER must be one line without a colon",
                ),
            )
        ),
    ],
)
def test_what_is_wrong_is_said(values: dict[str, str], line: str) -> None:
    assert _error({**_LEAST, **values}) == line


@pytest.mark.parametrize(
    "values",
    [
        *({f"{name}_USER": "zapwatch"} for name in ("WPP_GATEWAY", "PROMETHEUS", "ALERTMANAGER")),
        *({name: f"{_URL}?ssl_ca=/ca.pem"} for name in ("MESSAGE_LOG_URL", "HOOK_STATE_URL")),
    ],
)
def test_what_is_right_is_taken(values: dict[str, str]) -> None:
    assert parse({**_LEAST, **values})


def test_the_blanks_of_the_key_count() -> None:
    stored = encrypt("not-a-real-secret", " infra ", bytes(16))
    values = {**_LEAST, "WPP_GATEWAY_SECRET": stored}
    assert parse({**values, "INFRA_SECRET_KEY": " infra "}).gateways[0].secret == _LEAST_SECRET
    assert "INFRA_SECRET_KEY" in _error({**values, "INFRA_SECRET_KEY": "infra"})


@pytest.mark.parametrize("key", ["", "another"])
@pytest.mark.parametrize("prefix", ["", "encrypted:"])
def test_a_secret_that_looks_encrypted_and_is_not_decrypted_is_never_used(
    key: str, prefix: str
) -> None:
    stored = prefix + encrypt("not-a-real-secret", "infra", bytes(16))
    line = _error({**_LEAST, "WPP_GATEWAY_SECRET": stored, "INFRA_SECRET_KEY": key})
    assert line.startswith("WPP_GATEWAY_SECRET looks encrypted, and INFRA_SECRET_KEY does not")
    assert stored not in line


def test_a_secret_that_decrypts_to_what_no_header_can_carry_is_named_but_not_shown() -> None:
    stored = encrypt("gehöim", "infra", bytes(16))
    line = _error({**_LEAST, "WPP_GATEWAY_SECRET": stored, "INFRA_SECRET_KEY": "infra"})
    assert "WPP_GATEWAY_SECRET" in line
    assert "INFRA_SECRET_KEY" in line
    assert "gehöim" not in line
    assert stored not in line


def test_the_message_log_can_be_another_database_or_none() -> None:
    other = _log({"MESSAGE_LOG_URL": "sqlite:///var/log.sqlite3"})
    assert str(other) == "sqlite:///var/log.sqlite3"
    gateway = {k: v for k, v in _LEAST.items() if k.startswith("WPP")}
    for none in ({"MESSAGE_LOG_URL": " None "}, *({"MESSAGE_SOURCE": one} for one in _SOURCES)):
        [without] = parse({**gateway, **none}).gateways
        assert without.message_log_url is None
        assert without.messages == none.get("MESSAGE_SOURCE", "none").strip().lower()


@pytest.mark.parametrize("source", ["log", "events"])
def test_messages_that_are_counted_teach(source: str) -> None:
    values = {"MESSAGE_SOURCE": source, "SILENCE_MODE": "adaptive"}
    assert parse({**_LEAST, **values}).gateways[0].silence_mode is SilenceMode.ADAPTIVE


def test_localhost_is_the_socket_of_the_server_as_for_php_and_nothing_else_is() -> None:
    for host, sockets in (("localhost", SOCKETS), ("127.0.0.1", None), ("::1", None)):
        url = _log({"DB_HOST": host})
        assert url.query.get("unix_socket") == sockets
        assert url.host == host


@pytest.mark.parametrize("name", ["DB_HOST", "DB_USER"])
def test_a_log_that_is_not_needed_may_be_set_wrongly(name: str) -> None:
    values = {k: v for k, v in _LEAST.items() if k != name}
    [gateway] = parse(values, needs_log=False).gateways
    assert gateway.message_log_error.startswith(f"{name} is not set: ")
    assert gateway.message_log_url is None


@pytest.mark.parametrize("kind", ["mysql", "mariadb", "mariadb+pymysql"])
def test_all_urls_of_mariadb_and_mysql_have_one_dialect(kind: str) -> None:
    settings = parse({**_LEAST, "HOOK_STATE_URL": f"{kind}://u@h/d"})
    assert settings.hook_state_url.drivername == "mysql+pymysql", "tables have its options only"


@pytest.mark.parametrize("kind", sorted(set(TYPES) - NAMED_CHANNELS))
def test_one_gateway_of_any_kind_needs_no_second_file(kind: str) -> None:
    values = {**_LEAST, "WPP_GATEWAY_TYPE": f" {kind.title()}", "MESSAGE_SOURCE": "activity"}
    [gateway] = parse(values).gateways
    assert (gateway.type, gateway.name, gateway.messages) == (kind, "wpp", "activity")
    assert gateway.base_url == _LEAST["WPP_GATEWAY_BASE_URL"]
    assert gateway.message_log_url is None


def test_one_channel_of_whapi_needs_no_second_file() -> None:
    values = {
        "WPP_GATEWAY_TYPE": "whapi",
        "WPP_GATEWAY_SECRET": "not-a-real-token",
        "WPP_GATEWAY_NAME": "loja",
        "MESSAGE_SOURCE": "activity",
    }
    (gateway,) = parse(values).gateways
    assert (gateway.base_url, gateway.secret) == ("https://gate.whapi.cloud", "")
    assert [(one.name, one.secret) for one in gateway.channels] == [("loja", "not-a-real-token")]
    (other,) = parse({**values, "WPP_GATEWAY_BASE_URL": "http://127.0.0.1:1"}).gateways
    assert other.base_url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("overrides", "listed", "hours"),
    [
        ("pixel12digital=72,Imob Sites=1.5", ("Pixel12 Digital", "imobsites", "x"), (72, 1.5, 4)),
        ("loja=1", ("Loja", "loja"), (4, 1)),
        ("loja=1,LOJA=2", ("Loja", "loja"), (4, 1)),
        ("loja=1,LOJA=2", ("Loja",), (4,)),
        ("loja=1,Loja=2", ("Loja", "loja", "LOJA"), (2, 1, 4)),
        ("S\u00e3o=1", ("Sa\u0303o",), (1,)),
    ],
)
def test_a_silence_threshold_is_that_of_the_exact_name_or_of_the_only_one_alike(
    overrides: str, listed: tuple[str, ...], hours: tuple[float, ...]
) -> None:
    [gateway] = parse({**_LEAST, "SILENT_HOURS_OVERRIDES": overrides}).gateways
    channels = ChannelList.of(Channel(name, Status.CONNECTED) for name in listed).channels
    found = tuple(gateway.silence_threshold(channel) / 3600 for channel in channels)
    assert found == hours


def _file(directory: Path, content: bytes) -> str:
    path = directory / "settings.env"
    path.write_bytes(content)
    return str(path)


BOTH_READ_ALIKE = [
    ("KEY=value", "value"),
    ("KEY = value ", "value"),
    ("KEY=", ""),
    ("KEY=a=b==", "a=b=="),
    ("KEY=$HOME${HOME}$(id)`id`", "$HOME${HOME}$(id)`id`"),
    ("KEY=a#b", "a#b"),
    (r"KEY=a\nb\\c\"d", r"a\nb\\c\"d"),
    ('KEY="quoted # value "', "quoted # value "),
    ("KEY='quoted # value'", "quoted # value"),
    ("KEY=\"'two pairs'\"", "'two pairs'"),
    ('KEY=""', ""),
]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        *BOTH_READ_ALIKE,
        ("KEY=value # comment", "value"),
        ("KEY='value' # comment", "value"),
        ('KEY="value"#comment', "value"),
        ("KEY= # comment", ""),
        ("export KEY=value", "value"),
        (r'KEY="a\nb\\c\"d"', 'a\nb\\c"d'),
        (r"KEY='a\nb\\c\'d'", r"a\nb\c'd"),
        ("KEY=first\nKEY=last", "last"),
        ('KEY="two\nlines"', "two\nlines"),
        ("# KEY=comment\n\n  #KEY=comment\nALONE\nKEY=value", "value"),
    ],
)
def test_our_own_file_is_read_as_users_of_python_expect(line: str, value: str) -> None:
    assert parse_env(f"FIRST=1\n{line}\nLAST=2\n") == {"FIRST": "1", "KEY": value, "LAST": "2"}


@pytest.mark.parametrize("line", ['KEY="not-a-real', "KEY='not-a-real\nB=2", "A B=not-a-real"])
def test_a_line_of_our_own_file_that_is_none_is_an_error(line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_env(f"FIRST=1\n{line}\n", "some.env")
    assert str(caught.value) == (
        "some.env, line 2: it is not KEY=value, or a quote is missing; is it PixelHub's own? then "
        "name it in PIXELHUB_ENV or --pixelhub-env"
    )


@pytest.mark.parametrize(
    ("line", "value"),
    [
        *BOTH_READ_ALIKE,
        ("KEY=a#b #c", "a#b #c"),
        ("KEY=#", "#"),
        (r'KEY="a\nb\\c\"d"', r"a\nb\\c\"d"),
        ('KEY=""two pairs""', '"two pairs"'),
        ('KEY="not a pair', '"not a pair'),
        ("KEY=\"not a pair'", "\"not a pair'"),
        ('KEY="', '"'),
        ('KEY="a" # b', '"a" # b'),
        ("KEY=p\u2028q\x0cr\x85s", "p\u2028q\x0cr\x85s"),
        ("# KEY=comment\n\n  #KEY=comment\nno equals sign\n=no key\nKEY=value", "value"),
        ("KEY=first\nKEY=last", "first"),
        ("KEY=\nKEY=last", ""),
    ],
)
def test_pixelhubs_file_is_read_by_pixelhubs_rules(line: str, value: str) -> None:
    read = parse_pixelhub_env(f"FIRST=1\n{line}\nLAST=2\n")
    assert read == {"FIRST": "1", "KEY": value, "LAST": "2"}


@given(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=40))
def test_any_value_in_quotes_is_read_as_it_is_in_pixelhubs_file(value: str) -> None:
    assert parse_pixelhub_env(f'KEY="{value}"') == {"KEY": value}


@pytest.mark.parametrize("name", ["env_file", "pixelhub_env"])
def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_read(
    tmp_path: Path, name: str
) -> None:
    path = _file(tmp_path, b"\xef\xbb\xbfDB_PASS='\xc3\xa9'\r\nDB_USER=u\r\n")
    values = _collect(**{name: path}).values
    assert (values["DB_PASS"], values["DB_USER"]) == ("é", "u")


def _collect(env_file: str | None = os.devnull, **named: str) -> Sources:
    return collect(env_file, {}, **named)


def test_the_environment_wins_over_the_file_and_an_empty_value_does_not_count(
    tmp_path: Path,
) -> None:
    path = _file(tmp_path, f"{_LINES}SILENT_HOURS=7\nWPP_GATEWAY_NAME=f\n".encode())
    [gateway] = load(path, {"SILENT_HOURS": "9", "WPP_GATEWAY_NAME": "", "DB_HOST": ""}).gateways
    assert gateway.silent_hours == 9
    assert gateway.name == "f"
    assert gateway.message_log_url is not None
    assert gateway.message_log_url.host == "db.example.com"


def test_the_programs_own_environment_counts_where_no_other_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _file(tmp_path, _LINES.encode())
    monkeypatch.setenv("SILENT_HOURS", "11")
    assert load(path).gateways[0].silent_hours == 11


def test_a_file_named_env_is_read_without_being_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("KEY=value")
    monkeypatch.chdir(tmp_path)
    assert _collect(None).values == {"KEY": "value"}


def test_without_any_file_the_environment_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, _LEAST).gateways[0].secret == "not-a-real-secret"


@pytest.mark.parametrize(
    ("name", "called"), [("env_file", "--env-file"), ("pixelhub_env", "--pixelhub-env")]
)
def test_a_file_that_was_named_must_be_one(tmp_path: Path, name: str, called: str) -> None:
    path = str(tmp_path / "missing.env")
    with pytest.raises(SettingsError, match=rf"^{called}: there is no file .*missing\.env$"):
        _collect(**{name: path})
    with pytest.raises(SettingsError, match=r"cannot be read: Is a directory$"):
        _collect(**{name: str(tmp_path)})
    with pytest.raises(SettingsError, match=r"/dev/zero cannot be read: it is larger than 1048576"):
        _collect(**{name: "/dev/zero"})


def test_a_pipe_is_read_to_its_end_and_one_without_a_writer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"KEY=value\n")
    os.close(writer)
    assert _collect(f"/dev/fd/{reader}").values == {"KEY": "value"}
    os.close(reader)
    path = tmp_path / "pipe.env"
    os.mkfifo(path)
    monkeypatch.setattr("zapwatch.config.readers._END_SECONDS", 0.1)
    with pytest.raises(
        SettingsError, match=r"pipe\.env cannot be read: it has no end after 0.1 s$"
    ):
        _collect(str(path))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_our_own_file_in_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    path = _file(tmp_path, "DB_PASS=é".encode(encoding))
    with pytest.raises(SettingsError, match=r"is not UTF-8 text: save it as UTF-8 \(is it Pixel"):
        _collect(path)


def test_pixelhubs_file_may_be_latin_1_and_its_bytes_are_kept(tmp_path: Path) -> None:
    path = _file(tmp_path, "# configuração\nDB_USER=u\nDB_PASS=não\n".encode("latin-1"))
    values = _collect(pixelhub_env=path).values
    assert values["DB_USER"] == "u"
    assert values["DB_PASS"].encode("utf-8", "surrogateescape") == b"n\xe3o"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "pixelhub.env"
    path.write_text(_LINES)
    return path


def test_pixelhubs_values_count_where_ours_are_silent(theirs: Path, tmp_path: Path) -> None:
    ours = _file(tmp_path, f"PIXELHUB_ENV={theirs}\nDB_USER=reader\nDB_PASS=\n".encode())
    sources = collect(ours, {"DB_NAME": "other", "DB_HOST": ""})
    url = parse(sources.values).gateways[0].message_log_url
    assert url is not None
    assert (url.username, url.password) == ("reader", "not-a-real-password")
    assert (url.host, url.database) == ("db.example.com", "other")
    assert {name: sources.origins[name] for name in ("DB_USER", "DB_PASS", "DB_NAME")} == {
        "DB_USER": ours,
        "DB_PASS": str(theirs),
        "DB_NAME": "the environment",
    }


@pytest.mark.parametrize("way", ["option", "environment"])
def test_pixelhubs_file_can_be_named_in_other_ways(theirs: Path, way: str) -> None:
    if way == "option":
        settings = load(os.devnull, {"PIXELHUB_ENV": "/no/such"}, pixelhub_env=str(theirs))
    else:
        settings = load(os.devnull, {"PIXELHUB_ENV": str(theirs)})
    assert settings.gateways[0].secret == "not-a-real-secret"


def test_a_secrets_file_of_ours_wins_over_pixelhubs_value(theirs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of a file\n")
    sources = collect(
        os.devnull, {"PIXELHUB_ENV": str(theirs), "WPP_GATEWAY_SECRET_FILE": str(secret)}
    )
    assert sources.values["WPP_GATEWAY_SECRET"] == "of a file"
    assert sources.origins["WPP_GATEWAY_SECRET"] == f"{secret}, which the environment names"


def test_pixelhubs_gateway_is_not_one_beside_the_gateways_of_a_file(
    theirs: Path, tmp_path: Path
) -> None:
    gateways = tmp_path / "gateways.yaml"
    gateways.write_text(
        "gateways: [{name: a, type: wrapper, url: 'http://a.example.com', secret: x}]"
    )
    environ = {"GATEWAYS_FILE": str(gateways), "PIXELHUB_ENV": str(theirs)}
    [gateway] = load(os.devnull, environ).gateways
    assert gateway.base_url == "http://a.example.com"
    assert gateway.message_log_url is not None
    assert gateway.message_log_url.host == "db.example.com"


_READ_ALIKE = "WPP_GATEWAY_SECRET=x\nDB_HOST=h\n"


@pytest.mark.parametrize(
    "odd",
    [
        "DB_PASS=p #ss",
        'DB_PASS="p\\\\s"',
        "DB_PASS=first\nDB_PASS=last",
        'DB_PASS="p" # comment',
        "export DB_PASS=p",
    ],
)
@pytest.mark.parametrize(
    ("kind", "more", "named"),
    [
        ("env_file", "", "PIXELHUB_ENV or --pixelhub-env"),
        ("env_file", "APP_NAME=x\nSILENT_HOURS=4\n", "PIXELHUB_ENV or --pixelhub-env"),
        ("pixelhub_env", "SILENT_HOURS=4\n", "--env-file"),
    ],
)
def test_a_value_that_the_other_kind_would_have_otherwise_gets_one_line(
    tmp_path: Path, kind: str, more: str, named: str, odd: str
) -> None:
    path = _file(tmp_path, f"{_READ_ALIKE}{more}{odd}\n".encode())
    [line] = _collect(**{kind: path}).notices
    assert line.startswith(f"{path} is read by ")
    assert "DB_PASS would be different" in line
    assert f"name the file with {named}, or" in line
    assert "\n" not in line
    assert "p #ss" not in line
    path = _file(tmp_path, f"{_READ_ALIKE}{more}DB_PASS='p #ss'\n".encode())
    assert not _collect(**{kind: path}).notices


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("env_file", "SILENT_HOURS=4 # hours\nDB_PORT=3306 # its port\nexport HOOK_TOKEN=t\n"),
        ("env_file", "SILENT_HOURS=4\nDB_PASS=first\nDB_PASS=last\n"),
        ("pixelhub_env", f"{_READ_ALIKE}DB_PASS=p #ss\nAPP_NAME=first\nAPP_NAME=last\n"),
    ],
)
def test_a_file_of_the_right_kind_gets_none(tmp_path: Path, kind: str, text: str) -> None:
    assert not _collect(**{kind: _file(tmp_path, text.encode())}).notices


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("WPP_GATEWAY_URL", "WPP_GATEWAY_BASE_URL"),
        ("hook_token", "HOOK_TOKEN"),
        ("HOOK_TOKN_FILE", "HOOK_TOKEN_FILE"),
        ("APP_NAME", ""),
        ("PROMETHEUS_PORT", ""),
        ("WAHA_LOG_FORMAT", ""),
    ],
)
def test_a_misspelt_setting_gets_one_line(tmp_path: Path, wrong: str, right: str) -> None:
    path = _file(tmp_path, f"{wrong}=not-shown\nSILENT_HOURS=4\n".encode())
    notices = _collect(env_file=path).notices
    assert len(notices) == bool(right)
    for line in notices:
        assert line.startswith(f"{path}: {wrong} is not a setting; similar ones: ")
        assert right in line.split(": ")[-1].split(", ")


def test_the_line_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(_file(tmp_path, f"{_LINES}DB_PASS=twice\n".encode()), {})
    [record] = caplog.records
    assert "DB_PASS would be different by PixelHub's" in record.getMessage()


def test_a_file_of_certificates_must_be_one(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    [gateway] = parse({**_LEAST, "WPP_GATEWAY_CA_FILE": str(certificate)}).gateways
    assert gateway.ca_file == str(certificate)
    (tmp_path / "text").write_text("no certificate")
    for path, why in (
        (tmp_path / "missing", "cannot be read: No such file or directory"),
        (tmp_path / "text", "holds no certificate in PEM form"),
        (key, "holds no certificate in PEM form"),
    ):
        with pytest.raises(SettingsError) as caught:
            parse({**_LEAST, "WPP_GATEWAY_CA_FILE": str(path)})
        assert str(caught.value) == f"WPP_GATEWAY_CA_FILE: {path} {why}"


def test_a_database_that_cannot_be_looked_at_may_be_needed_by_no_one() -> None:
    url = f"sqlite:///{'x' * 300}"
    assert str(parse({**_LEAST, "MESSAGES_STATE_URL": url}).messages_state_url) == url


def test_a_bearers_gateway_can_have_no_user() -> None:
    values = {**_LEAST, "WPP_GATEWAY_TYPE": "wppconnect", "WPP_GATEWAY_USER": "zapwatch"}
    with pytest.raises(SettingsError, match="cannot be with the type wppconnect"):
        parse(values)


def test_the_settings_of_probes() -> None:
    values = {
        "PROBE": "Echo",
        "PROBE_OVERRIDES": "Lo Ja=off, obra = query,",
        "PROBE_ECHO_NUMBERS": "Lo Ja=5500000000001,obra=5500000000002",
        "PROBE_ECHO_TEXT": "alô?",
    }
    probe = parse({**_LEAST, **values}).gateways[0].probe
    assert probe.kind is ProbeKind.ECHO
    assert probe.overrides == {"Lo Ja": ProbeKind.OFF, "obra": ProbeKind.QUERY}
    assert probe.echo_numbers == {"Lo Ja": "5500000000001", "obra": "5500000000002"}
    assert probe.echo_text == "alô?"
    assert "5500000000001" not in repr(probe)


def _at(**values: str) -> Settings:
    return parse(hook_settings("http://127.0.0.1:1", **values))


def test_a_link_begins_with_the_external_url() -> None:
    wrong = "HOOK_EXTERNAL_URL must look like https://example.com/zapwatch"
    assert _error({**_LEAST, "HOOK_EXTERNAL_URL": "example.com"}) == wrong
    given = _at(HOOK_EXTERNAL_URL="https://example.com:8443/zap/watch/")
    assert hook_link(given) == "https://example.com:8443/zap/watch/"
    link = hook_link(given, "/channels/Loja São/1?", gateway="a&b")
    assert link == (
        "https://example.com:8443/zap/watch/channels/Loja%20S%C3%A3o/1%3F?gateway=a%26b"
    )


@pytest.mark.parametrize(
    ("listen", "host"),
    [
        ("127.0.0.1:9862", "127.0.0.1"),
        ("[::1]:9862", "[::1]"),
        ("0.0.0.0:9862", platform.node()),
        ("[::]:9862", platform.node()),
    ],
)
def test_without_one_a_link_leads_to_where_the_hook_listens(listen: str, host: str) -> None:
    assert hook_link(_at(HOOK_LISTEN=listen), "/x") == f"http://{host}:9862/x"
