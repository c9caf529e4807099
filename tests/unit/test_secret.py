"""Secrets: as PixelHub encrypts them, and in files as containers and systemd hand them over."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pixelhub import encrypt
from zapwatch.config import SECRETS, SettingsError, load, read_secrets
from zapwatch.config.files import UndecryptableError, decrypt
from zapwatch.config.readers import fingerprint

_KEY = "an infra key"
_IV = bytes(range(16))
_printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=80)


@given(_printable, st.text(min_size=1, max_size=40), st.binary(min_size=16, max_size=16))
def test_what_pixelhub_encrypted_is_decrypted(secret: str, key: str, iv: bytes) -> None:
    assert decrypt(encrypt(secret, key, iv), key) == secret


def test_a_secret_that_openssl_encrypted_is_decrypted() -> None:
    # Made with: openssl enc -aes-256-cbc -K SHA-256(key) -iv 000102...0f, the IV put in front.
    stored = "AAECAwQFBgcICQoLDA0ODxNB8jMsZKU9/mpGIwxnOHzCKPpJb2D741arBujehZ5a"
    assert decrypt(stored, _KEY) == "not a real secret"


@pytest.mark.parametrize(
    "stored",
    [
        # 32 or more hex digits, whatever the key.
        "0123456789abcdefABCDEF0123456789",
        "ab" * 32,
        "0" * 64,
        # What cannot have been encrypted.
        "a plain secret",
        "c2hvcnQ=",
        base64.b64encode(b"x" * 47).decode(),
        base64.b64encode(b"x" * 16).decode(),
        "not*base64*at*all*not*base64*at*all*not*base64==",
    ],
)
def test_what_is_plain_stays_so(stored: str) -> None:
    assert decrypt(stored, _KEY) == stored


def test_what_was_encrypted_with_another_key_is_refused() -> None:
    stored = encrypt("not a real secret", "another key", _IV)
    with pytest.raises(UndecryptableError):
        decrypt(stored, _KEY)


def test_pixelhub_without_a_key_encrypts_with_an_empty_one() -> None:
    assert decrypt(encrypt("not a real secret", "", _IV), "") == "not a real secret"
    with pytest.raises(UndecryptableError):
        decrypt(encrypt("not a real secret", _KEY, _IV), "")


@pytest.mark.parametrize("length", range(1, 64))
def test_padding_may_have_been_lost(length: int) -> None:
    secret = "s" * length
    assert decrypt(encrypt(secret, _KEY, _IV).rstrip("="), _KEY) == secret


def test_a_prefix_may_say_that_it_is_encrypted() -> None:
    stored = f"encrypted:{encrypt('not a real secret', _KEY, _IV)}"
    assert decrypt(stored, _KEY) == "not a real secret"
    for wrong in (stored[:-6], *(f"encrypted:{text}" for text in ("", "not a secret", "0" * 64))):
        with pytest.raises(UndecryptableError) as caught:
            decrypt(wrong, _KEY)
        assert caught.value.marked


def test_a_prefix_may_say_that_it_is_plain() -> None:
    stored = encrypt("not a real secret", "another key", _IV)
    assert decrypt(f"plain:{stored}", _KEY) == stored


def test_a_key_of_other_bytes_than_utf_8_counts_as_its_bytes() -> None:
    key = hashlib.sha256(b"n\xe3o").digest()
    padded = b"secret" + bytes([10]) * 10
    encryptor = Cipher(algorithms.AES(key), modes.CBC(_IV)).encryptor()
    stored = base64.b64encode(_IV + encryptor.update(padded) + encryptor.finalize()).decode()
    assert decrypt(stored, "n\udce3o") == "secret"


@pytest.mark.parametrize("secret", ["two\nlines", "\x00", "", "   "])
def test_what_no_header_can_carry_is_noise_of_a_wrong_key(secret: str) -> None:
    with pytest.raises(UndecryptableError):
        decrypt(encrypt(secret, _KEY, _IV), _KEY)


@pytest.mark.parametrize("secret", [" padded", "padded ", "padded\n", "\tpadded"])
def test_blanks_around_a_decrypted_secret_are_dropped_as_a_header_drops_them(secret: str) -> None:
    assert decrypt(encrypt(secret, _KEY, _IV), _KEY) == "padded"


def test_a_fingerprint_shows_length_and_digest_and_nothing_of_the_secret() -> None:
    digest = hashlib.sha256(b"not a real secret").hexdigest()
    shown = fingerprint("not a real secret")
    assert shown == f"17 characters, SHA-256 begins {digest[:8]}"


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
