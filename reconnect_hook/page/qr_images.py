"""The image in a gateway's QR answer: in whatever form it came, checked before anybody sees it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

MAX_IMAGE_BYTES = 1024 * 1024
"""A larger image is no QR code."""

_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


class QrImageError(Exception):
    """There is no image that could be shown."""


@dataclass(frozen=True, slots=True)
class QrImage:
    """What lets whoever scans it take over the account: out of ``repr()``, and never written."""

    kind: str
    data: bytes = field(repr=False)


def read(text: str, fetch: Callable[[str], bytes]) -> QrImage:
    """Return the image of a QrAnswer; raise QrImageError, or what ``fetch`` raises.

    ``fetch`` gets what is only a link.
    """
    if text.startswith(("http://", "https://")):
        data = fetch(text)
    elif text.startswith("data:"):
        head, _, body = text.partition(",")
        data = _decode(body) if head.endswith(";base64") else unquote_to_bytes(body)
    else:
        data = _decode(text)
    if len(data) <= MAX_IMAGE_BYTES:
        for magic, kind in _KINDS:
            if data.startswith(magic):
                return QrImage(kind, data)
    raise QrImageError("no image of a kind that browsers show safely")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise QrImageError("not base64") from None
