"""gateways.yaml: what is read of it, and the one line that a wrong one gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demo.configuration import ROOT
from tests.support.pixelhub import encrypt
from zapwatch.channels import Channel, NamedChannel, Status
from zapwatch.config import GatewaySettings, Settings, SettingsError, SilenceMode, parse
from zapwatch.config.load_gateways import read_gateways
from zapwatch.gateways.registry import ADAPTERS

_LOG = {"DB_HOST": "db.example.com", "DB_USER": "zapwatch"}
_ONE = """
- name: one
  type: wrapper
  url: https://gateway.example.com:8443
  secret: not-a-real-secret
"""

_NO_FILE = "cannot be read: No such file or directory"

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(entries: str) -> str:
        path = tmp_path / "gateways.yaml"
        path.write_text(f"gateways:\n{entries}")
        return str(path)

    return written


def _parse(path: str, **values: str) -> Settings:
    return parse({**_LOG, "GATEWAYS_FILE": path, **values})


def _one(path: str, **values: str) -> GatewaySettings:
    [gateway] = _parse(path, **values).gateways
    return gateway


def _error(path: str, **values: str) -> str:
    with pytest.raises(SettingsError) as caught:
        _parse(path, **values)
    line = str(caught.value)
    assert line.isprintable(), "one line"
    return line


def test_the_example_can_be_used_and_shows_most_keys(tmp_path: Path) -> None:
    text = (ROOT / "gateways.example.yaml").read_text()
    secret = tmp_path / "secret"
    secret.write_text("of a file\n")
    example = tmp_path / "gateways.yaml"
    example.write_text(text.replace("/etc/zapwatch/pixelhub-secret", str(secret)))

    first, second, other, cloud, third = _parse(str(example)).gateways

    assert [g.name for g in (first, second, third)] == ["pixelhub", "loja", "testes"]
    assert [channel.name for channel in cloud.channels] == ["imobsites", "pixel12digital"]
    assert (other.name, other.type, other.message_log_url) == ("evo", "evolution", None)
    assert (first.secret, first.timeout, first.silent_hours) == ("of a file", 90, 4)
    assert first.message_log_url is not None
    assert first.message_log_url.host == "db.example.com"
    assert second.message_log_url is not None
    assert second.message_log_url.database == "loja"
    assert second.silence_threshold(Channel("plantao", Status.CONNECTED)) == 1800
    assert third.message_log_url is None
    assert third.allow_restart is True


def test_what_an_entry_does_not_say_is_said_for_all(write: Write) -> None:
    two = _ONE + _ONE.replace("one", "two") + "  silent_hours: 9\n  silence_mode: fixed\n"
    first, second = _parse(
        write(two),
        SILENT_HOURS="2",
        SILENT_HOURS_OVERRIDES="loja=1",
        SILENCE_MODE="adaptive",
        SILENCE_STATE_FILE="var/learned.json",
        WPP_GATEWAY_TIMEOUT="7",
        RECONNECT_ALLOW_RESTART="yes",
    ).gateways
    assert (first.silent_hours, second.silent_hours) == (2, 9)
    assert (first.silence_mode, second.silence_mode) == (SilenceMode.ADAPTIVE, SilenceMode.FIXED)
    assert first.silence_state_file == Path("var/learned-one.json")
    assert second.silence_state_file == Path("var/learned-two.json")
    for gateway in (first, second):
        assert gateway.silence_threshold(Channel("Loja", Status.CONNECTED)) == 3600
        assert (gateway.timeout, gateway.allow_restart) == (7, True)


def test_texts_stay_as_they_stand(write: Write) -> None:
    entry = _ONE.replace("not-a-real-secret", "012").replace("one", "1.50")
    gateway = _one(write(entry + "  allow_restart: no\n"))
    assert (gateway.secret, gateway.name, gateway.allow_restart) == ("012", "1.50", False)


def test_a_secret_may_be_encrypted(write: Write) -> None:
    stored = encrypt("not-a-real-secret", "infra", bytes(16))
    path = write(_ONE.replace("not-a-real-secret", stored))
    assert _one(path, INFRA_SECRET_KEY="infra").secret == "not-a-real-secret"


def test_an_api_key_of_another_gateway_may_look_encrypted(write: Write) -> None:
    key = encrypt("not-a-real-secret", "infra", bytes(16))
    other = _ONE.replace("not-a-real-secret", key).replace("wrapper", "evolution")
    assert _one(write(other)).secret == key
    assert "gateway one: secret looks encrypted" in _error(
        write(other.replace(key, f"encrypted:{key}"))
    )
    assert "gateway one: secret looks encrypted" in _error(
        write(other.replace("evolution", "wrapper"))
    )


def test_secrets_are_in_no_repr(write: Write) -> None:
    log = "  message_log_url: mysql://u:not-a-real-password@db.example.com/x\n"
    read = repr(_parse(write(_ONE + log)))
    assert "not-a-real" not in read


@pytest.mark.parametrize(
    ("text", "keys", "read", "value"),
    [
        (
            "silent_hours_overrides: loja=1.5,Imob Sites=72",
            "silent_hours_overrides: {loja: 1.5, Imob Sites: 72}",
            lambda gateway: gateway.silent_hours_overrides,
            {"loja": 1.5, "Imob Sites": 72},
        ),
        (
            "ignore: loja,Imob Sites",
            "ignore: [loja, Imob Sites]",
            lambda gateway: gateway.ignore.keys(),
            {"loja", "Imob Sites"},
        ),
        (
            "probe_overrides: loja=echo",
            "probe_overrides: {loja: echo}",
            lambda gateway: gateway.probe.overrides,
            {"loja": "echo"},
        ),
        (
            "probe_echo_numbers: loja=5500000000001,obra=5500000000002",
            "probe_echo_numbers: {loja: 5500000000001, obra: 5500000000002}",
            lambda gateway: gateway.probe.echo_numbers,
            {"loja": "5500000000001", "obra": "5500000000002"},
        ),
    ],
)
def test_what_is_said_of_channels_may_be_a_text_or_keys(
    write: Write, text: str, keys: str, read: Callable[[GatewaySettings], object], value: object
) -> None:
    for line in (text, keys):
        assert read(_one(write(f"{_ONE}  {line}\n"), IGNORE_CHANNELS="obra")) == value


_NAMED = """
- name: account
  type: whapi
  messages: none
  channels:
    - name: Loja 1
      secret: not-a-real-token
    - name: obra
      secret: not-a-real-token-either
      id: ABCDEF-12345
"""


def test_channels_are_named_with_a_secret_each(write: Write, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of a file\n")
    entry = _NAMED.replace("secret: not-a-real-token\n", f"secret_file: {tmp_path / 'token'}\n")
    gateway = _one(write(entry + "  requests_per_month: 1000\n"))
    assert gateway.base_url == "https://gate.whapi.cloud"
    assert gateway.secret == ""
    assert gateway.channels == (
        NamedChannel("Loja 1", "of a file"),
        NamedChannel("obra", "not-a-real-token-either", "ABCDEF-12345"),
    )
    assert gateway.requests_per_month == 1000
    assert "not-a-real-token" not in repr(gateway)
    assert "of a file" not in repr(gateway)


def test_a_channels_secret_may_be_encrypted_as_pixelhub_does(write: Write) -> None:
    stored = f"encrypted:{encrypt('not-a-real-token', 'infra', bytes(16))}"
    path = write(_NAMED.replace("not-a-real-token\n", f"{stored}\n"))
    assert _one(path, INFRA_SECRET_KEY="infra").channels[0].secret == "not-a-real-token"
    for key in ("", "another"):
        line = _error(path, INFRA_SECRET_KEY=key)
        assert line.startswith(
            f"{path}, gateway account: secret of Loja 1 looks encrypted, and INFRA_SECRET_KEY "
        )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  channels:", "  secret: x\n  channels:", "secret is not for the type whapi: each of"),
        ("  channels:\n", "  channels: []\n  x:\n", "'x' is not known"),
        (_NAMED[_NAMED.index("  channels:") :], "", "channels must list them, each with a -"),
        ("    - name: obra\n", "    - x\n    - name: obra\n", "channel 2 must have keys: name"),
        ("name: obra", "nome: obra", "channel 2: 'nome' is not known; known: name, secret"),
        ("name: obra", "name: [obra]", "channel 2: name must be one value"),
        ("name: obra", "name: ''", "channel 2: name is empty"),
        ("name: obra", "name: '..'", "channel 2: '..' cannot be a channel's name"),
        ("name: obra", "name: Loja 1", "channel 2: another one has this name or id"),
        ("ABCDEF-12345", "Loja 1", "channel 2: another one has this name or id"),
        ("-either", "", "channel 2: another one has this secret"),
        ("    - name: obra\n      secret", "    - secret", "channel 2: name is missing"),
        ("      secret: not-a-real-token\n", "", "channel 1: one of secret and secret_file is"),
        (
            "real-token\n",
            "real-token\n      secret_file: /no\n",
            "channel 1: one of secret and secret",
        ),
        (
            "-token-either",
            "-töken",
            "channel 2: secret holds characters that are not allowed in an HTTP",
        ),
        ("secret: not-a-real-token-either", "secret_file: /nowhere", "secret_file: /nowhere can"),
        ("messages: none", "requests_per_month: 199", "must be a whole number from 200 to"),
        ("type: whapi", "type: waha\n  url: http://x", "channels is not for the type waha"),
    ],
)
def test_a_wrong_channel_is_named_with_its_key(
    write: Write, old: str, new: str, words: str
) -> None:
    assert old in _NAMED
    path = write(_NAMED.replace(old, new, 1))
    line = _error(path)
    assert line.startswith(path)
    assert words in line
    assert "not-a-real" not in line


@pytest.mark.parametrize(
    "setting",
    ["WPP_GATEWAY_TYPE", "WPP_GATEWAY_BASE_URL", "WPP_GATEWAY_SECRET", "WPP_GATEWAY_NAME"],
)
def test_one_gateway_beside_the_file_is_an_error(write: Write, setting: str) -> None:
    line = _error(write(_ONE), **{setting: "https://gateway.example.com"})
    assert line.startswith(f"{setting} and GATEWAYS_FILE are both set: name all gateways in ")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  url:", "  uri:", "'uri' is not known; known: allow_restart, ca_file"),
        ("  type: wrapper\n", "", f"type must be one of {', '.join(ADAPTERS)}, not"),
        ("type: wrapper", "type: [wrapper]", "type must be one of "),
        ("type: wrapper", "type: telegram", "type must be one of "),
        ("  secret: not-a-real-secret\n", "", "secret is missing"),
        ("https://gateway.example.com:8443", "''", "url is missing"),
        ("https:", "ftp:", "url must look like https://gateway.example.com:8443"),
        ("secret: not-a-real-secret", "secret: [x]", "secret must be one value"),
        ("secret: not-a-real-secret", "secret: x\n  secret_file: /no", "secret and "),
        ("secret: not-a-real-secret", "secret_file: /no", f"secret_file: /no {_NO_FILE}"),
        *(
            ("type:", f"{line}\n  type:", f"{line.partition(':')[0]}{words}")
            for line, words in (
                ("silent_hours: x", " must be a number, more"),
                ("timeout: -1", " must be a number, more than 0"),
                ("allow_restart: 7", " must be true or false"),
                ("ca_file: /nowhere", ": /nowhere cannot be read"),
                ("silence_mode: x", " must be fixed or adap"),
                ("message_log_url: x", " must be an SQLA"),
                ("messages: x", " must be one of log, events"),
                ("ignore: [[loja]]", " must be a list of channels"),
                ("silent_hours_overrides: {'a,b': 1}", " must be hours by channel"),
                ("silent_hours_overrides: {loja: 0}", " must be channel=hours"),
                ("probe_echo_numbers: {loja: [5500000000001]}", " must be numbers by channel"),
            )
        ),
    ],
)
def test_a_wrong_entry_is_named_with_its_key(write: Write, old: str, new: str, words: str) -> None:
    assert old in _ONE
    path = write(_ONE.replace(old, new, 1))
    assert _error(path).startswith(f"{path}, gateway one: {words}")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name: one", "nome: one", ", gateway 1: name must be 1 to 63 letters"),
        ("name: one", "name: a/b", ", gateway 1: name must be 1 to 63 letters"),
        ("name: one", "name: [one]", ", gateway 1: name must be 1 to 63 letters"),
        ("type:", "secret: y\n  type:", ", line 7: the key 'secret' is there twice"),
        ("type:", "type: {\n  x", ", line "),
    ],
)
def test_an_entry_without_a_name_is_named_by_its_place(
    write: Write, old: str, new: str, words: str
) -> None:
    path = write(_ONE.replace(old, new, 1))
    line = _error(path)
    assert line.removeprefix("GATEWAYS_FILE: ").startswith(path)
    assert words in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with gateways: and list them"),
        ("gateways:", "must begin with gateways: and list them"),
        ("gateways: []", "must begin with gateways: and list them"),
        ("gateways: {name: one}", "must begin with gateways: and list them"),
        ("gateways: [one]", "gateway 1 must have keys: name, type, url and secret at least"),
        (f"gateways:{_ONE}\nmore: 1", "'more' is not known"),
        (f"gateways:{_ONE}{_ONE}", "two gateways are named one"),
        ("[" * 100_000, "is not valid YAML: its brackets nest too deeply"),
        ("a: " + "{" * 101, "is not valid YAML: its brackets nest too deeply"),
        ("\x00", "is not valid YAML"),
        ("a: *b", ", line 1: "),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "gateways.yaml"
    path.write_text(text)
    began = time.process_time()
    assert words in _error(str(path))
    assert time.process_time() - began < 3, "and not the 25 s that the parser would take"


def test_a_file_that_is_not_there_or_too_large_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert _error(str(missing)) == f"GATEWAYS_FILE: {missing} {_NO_FILE}"
    large = tmp_path / "large.yaml"
    large.write_text("#" * 1024 * 1024 + "\n")
    assert "is larger than" in _error(str(large))


def test_a_wrong_setting_of_the_env_is_called_as_it_is_there(write: Write) -> None:
    assert _error(write(_ONE), SILENT_HOURS="x").startswith("SILENT_HOURS must be a number")


@given(text=st.one_of(st.text(), st.binary()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_anything_is_read_or_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    with pytest.raises(SettingsError):
        read_gateways(str(path), _LOG)
