"""PixelHub's encryption of the gateway secret."""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def encrypt(secret: str, infra_key: str, iv: bytes) -> str:
    """Return ``secret`` as PixelHub stores it, with a 16-byte ``iv``."""
    padder = padding.PKCS7(128).padder()
    padded = padder.update(secret.encode()) + padder.finalize()
    key = hashlib.sha256(infra_key.encode()).digest()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return base64.b64encode(iv + encryptor.update(padded) + encryptor.finalize()).decode()
