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


def test_overrides_may_be_texts_or_keys(write: Write) -> None:
    text = _one(write(_ONE + "  silent_hours_overrides: loja=1.5,Imob Sites=72\n"))
    keys = _one(write(_ONE + "  silent_hours_overrides:\n    loja: 1.5\n    Imob Sites: 72\n"))
    assert text.silent_hours_overrides == keys.silent_hours_overrides
    assert text.silent_hours_overrides == {"loja": 1.5, "Imob Sites": 72}


def test_ignored_channels_may_be_a_text_or_a_list(write: Write) -> None:
    text = _one(write(_ONE + "  ignore: loja,Imob Sites\n"))
    listed = _one(write(_ONE + "  ignore: [loja, Imob Sites]\n"), IGNORE_CHANNELS="obra")
    assert text.ignore.keys() == listed.ignore.keys() == {"loja", "Imob Sites"}
    assert "gateway one: ignore must be a list of channels" in _error(
        write(_ONE + "  ignore: [[loja]]\n")
    )


def test_probes_of_channels_may_be_texts_or_keys(write: Write) -> None:
    text = (
        "  probe_overrides: loja=echo\n"
        "  probe_echo_numbers: loja=5500000000001,obra=5500000000002\n"
    )
    keys = (
        "  probe_overrides:\n    loja: echo\n"
        "  probe_echo_numbers:\n    loja: 5500000000001\n    obra: 5500000000002\n"
    )
    assert _one(write(_ONE + text)).probe == _one(write(_ONE + keys)).probe
    assert _one(write(_ONE + keys)).probe.echo_numbers["obra"] == "5500000000002"


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


def test_an_encrypted_secret_is_not_taken_for_the_secret_itself(write: Write) -> None:
    path = write(_ONE.replace("not-a-real-secret", "encrypted:AAAA"))
    assert "gateway one: secret looks encrypted, and INFRA_SECRET_KEY does not" in _error(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  channels:", "  secret: x\n  channels:", "secret is not for the type whapi: each of"),
        ("  channels:\n", "  channels: []\n  x:\n", "'x' is not known"),
        (_NAMED[_NAMED.index("  channels:") :], "", "channels must list them, each with a -"),
        ("    - name: obra\n", "    - x\n    - name: obra\n", "channel 2 must have keys: name"),
        ("name: obra", "nome: obra", "channel 2: 'nome' is not known; there are name, secret"),
        ("name: obra", "name: [obra]", "channel 2: name must be one value"),
        ("name: obra", "name: ''", "channel 2: name is empty"),
        ("name: obra", "name: '..'", "channel 2: '..' cannot be a channel's name"),
        ("name: obra", "name: Loja 1", "channel 2: another one has this name or id"),
        ("ABCDEF-12345", "Loja 1", "channel 2: another one has this name or id"),
        ("-either", "", "channel 2: another one has this secret"),
        ("    - name: obra\n      secret", "    - secret", "channel 2: name is missing"),
        ("      secret: not-a-real-token\n", "", "channel 1: one of secret and secret_file is"),
        ("-token-either", "-töken", "channel 2: secret holds characters that no HTTP header"),
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
        ("  url:", "  uri:", "gateway one: 'uri' is not known; there are allow_restart, ca_file"),
        ("name: one", "nome: one", "gateway 1: name must be 1 to 63 letters"),
        ("name: one", "name: a/b", "gateway 1: name must be 1 to 63 letters"),
        ("name: one", "name: [one]", "gateway 1: name must be 1 to 63 letters"),
        ("  type: wrapper\n", "", f"gateway one: type must be one of {', '.join(ADAPTERS)}, not"),
        ("type: wrapper", "type: [wrapper]", "gateway one: type must be one of "),
        ("type: wrapper", "type: telegram", "gateway one: type must be one of "),
        ("  secret: not-a-real-secret\n", "", "gateway one: secret is missing"),
        ("https://gateway.example.com:8443", "''", "gateway one: url is missing"),
        ("https:", "ftp:", "gateway one: url must look like https://gateway.example.com:8443"),
        ("secret: not-a-real-secret", "secret: [x]", "gateway one: secret must be one value"),
        (
            "secret: not-a-real-secret",
            "secret_file: /nowhere/at/all",
            "gateway one: secret_file: /nowhere/at/all cannot be read: No such file",
        ),
        (
            "secret: not-a-real-secret",
            "secret: x\n  secret_file: /nowhere",
            "gateway one: secret and ",
        ),
        ("type:", "silent_hours: x\n  type:", "gateway one: silent_hours must be a number, more"),
        ("type:", "timeout: -1\n  type:", "gateway one: timeout must be a number, more than 0"),
        ("type:", "allow_restart: 7\n  type:", "gateway one: allow_restart must be true or false"),
        ("type:", "ca_file: /nowhere\n  type:", "gateway one: ca_file: /nowhere cannot be read"),
        ("type:", "silence_mode: x\n  type:", "gateway one: silence_mode must be fixed or adap"),
        ("type:", "message_log_url: x\n  type:", "gateway one: message_log_url must be an SQLA"),
        ("type:", "messages: x\n  type:", "gateway one: messages must be one of log, events"),
        (
            "type:",
            "silent_hours_overrides: {'a,b': 1}\n  type:",
            "gateway one: silent_hours_overrides must be hours by channel",
        ),
        (
            "type:",
            "probe_echo_numbers: {loja: [5500000000001]}\n  type:",
            "gateway one: probe_echo_numbers must be numbers by channel",
        ),
        (
            "type:",
            "silent_hours_overrides: {loja: 0}\n  type:",
            "gateway one: silent_hours_overrides must be channel=hours",
        ),
        ("type:", "secret: y\n  type:", ", line 3: a key is there twice"),
        ("type:", "type: {\n  x", ", line "),
    ],
)
def test_a_wrong_entry_is_named_with_its_key(write: Write, old: str, new: str, words: str) -> None:
    assert old in _ONE
    path = write(_ONE.replace(old, new, 1))
    line = _error(path)
    assert line.startswith(path)
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
        (f"gateways:{_ONE}{_ONE}", "two gateways are called one"),
        ("[" * 100_000, "is not valid YAML: its brackets nest too deep"),
        ("a: " + "{" * 101, "is not valid YAML: its brackets nest too deep"),
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
    why = "cannot be read: No such file or directory"
    assert _error(str(missing)) == f"GATEWAYS_FILE: {missing} {why}"
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
