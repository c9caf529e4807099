"""The gateway secret as PixelHub stores it: plain, or encrypted with INFRA_SECRET_KEY."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_BLOCK = 16  # bytes: the AES block, and the IV that PixelHub writes in front
_PLAIN = re.compile(r"[0-9a-fA-F]{32,}")


def decrypt(stored: str, infra_key: str) -> str:
    """Return the secret that ``stored`` holds; what does not decrypt is taken as plain.

    PixelHub encrypts with AES-256-CBC and PKCS#7 padding under SHA-256 of INFRA_SECRET_KEY, and
    stores base64 of the IV and the ciphertext. 32 or more hex digits are always plain.
    """
    if not infra_key or _PLAIN.fullmatch(stored):
        return stored
    try:
        raw = base64.b64decode(stored, validate=True)
    except (binascii.Error, ValueError):
        return stored
    if len(raw) < 2 * _BLOCK or len(raw) % _BLOCK:
        return stored
    key = hashlib.sha256(infra_key.encode()).digest()
    decryptor = Cipher(algorithms.AES(key), modes.CBC(raw[:_BLOCK])).decryptor()
    unpadder = padding.PKCS7(_BLOCK * 8).unpadder()
    try:
        padded = decryptor.update(raw[_BLOCK:]) + decryptor.finalize()
        secret = (unpadder.update(padded) + unpadder.finalize()).decode()
    except ValueError:  # wrong padding or not UTF-8: it was not encrypted with this key
        return stored
    # A secret travels in a header: what could not is no secret but noise of a wrong key. Blanks
    # around it would be lost on the way, and requests refuses to send those in front.
    return secret.strip() if secret.strip() and secret.strip().isprintable() else stored


def fingerprint(secret: str) -> str:
    """Return what may be shown of a secret: its length and eight digits of its SHA-256."""
    digest = hashlib.sha256(secret.encode()).hexdigest()[:8]
    return f"{len(secret)} characters, SHA-256 begins {digest}"
