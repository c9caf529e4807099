"""PixelHub's encrypted gateway secret."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pixelhub import encrypt
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
