"""Secrets in files of their own, as containers and systemd hand them over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapwatch.config import SECRETS, SettingsError, load, read_secrets

_SECRET = "not-a-real-secret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def _error(values: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        read_secrets(values)
    assert _SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_read_from_the_file_that_is_named(name: str, file: Path) -> None:
    file.write_text(_SECRET)
    assert read_secrets({f"{name}_FILE": str(file), "OTHER": "1"}) == {name: _SECRET, "OTHER": "1"}


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_end_is_not_part_of_the_secret_and_all_else_is(file: Path, end: str) -> None:
    file.write_bytes(f"  'é$#\\ \t{end}".encode())
    assert read_secrets({"DB_PASS_FILE": str(file)}) == {"DB_PASS": "  'é$#\\ \t"}


@given(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1))
def test_any_secret_is_read_as_it_is(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any-secret"
    file.write_bytes(f"{text}\n".encode())
    if text.strip():
        assert read_secrets({"DB_PASS_FILE": str(file)}) == {"DB_PASS": text}
    else:
        assert _error({"DB_PASS_FILE": str(file)}) == f"DB_PASS_FILE: {file} is empty"


@pytest.mark.parametrize("name", SECRETS)
def test_both_are_one_too_many(name: str, file: Path) -> None:
    file.write_text(_SECRET)
    line = _error({name: _SECRET, f"{name}_FILE": str(file)})
    assert line == f"{name} and {name}_FILE are both set: remove one of them"


def test_an_empty_value_is_none(file: Path) -> None:
    file.write_text(_SECRET)
    assert read_secrets({"HOOK_TOKEN": " ", "HOOK_TOKEN_FILE": f" {file} "}) == {
        "HOOK_TOKEN": _SECRET
    }
    assert read_secrets({"HOOK_TOKEN": "t", "HOOK_TOKEN_FILE": " "}) == {"HOOK_TOKEN": "t"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b"not-a-real-secret\nHOOK_TOKEN=x\n", "has more than one line: it must hold the secret"),
        (b"not-a-real-secret\xff", "is not UTF-8 text"),
    ],
)
def test_a_file_that_holds_no_secret_is_named(file: Path, content: bytes | None, why: str) -> None:
    if content is not None:
        file.write_bytes(content)
    assert _error({"HOOK_TOKEN_FILE": str(file)}).startswith(f"HOOK_TOKEN_FILE: {file} {why}")


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    assert _error({"DB_PASS_FILE": str(tmp_path)}).endswith("cannot be read: Is a directory")
    assert _error({"DB_PASS_FILE": "a\0b"}).endswith("cannot be read: no such name")


def test_the_environment_wins_whichever_of_the_two_it_holds(tmp_path: Path) -> None:
    files = {}
    for name in ("token", "secret"):
        files[name] = tmp_path / name
        files[name].write_text(f"{name} of a file\n")
    env_file = tmp_path / "settings.env"
    env_file.write_text(
        "WPP_GATEWAY_BASE_URL=https://gateway.example.com:8443\nMESSAGE_LOG_URL=none\n"
        f"WPP_GATEWAY_SECRET_FILE={files['secret']}\nHOOK_TOKEN=token of the env file\n"
    )
    settings = load(str(env_file), {"HOOK_TOKEN_FILE": str(files["token"])})
    assert settings.gateways[0].secret == "secret of a file"
    assert settings.hook_token == "token of a file"
    settings = load(str(env_file), {"WPP_GATEWAY_SECRET": "of the environment"})
    assert settings.gateways[0].secret == "of the environment"
