"""What a gateway gives as a QR code becomes an image that is safe to show, or nothing."""

from __future__ import annotations

import base64

import pytest

from demo.simulator.qr_image import png
from reconnect_hook.dashboard.qr import MAX_IMAGE_BYTES, QrImageError, read

_PNG = png(1)
_BASE64 = base64.b64encode(_PNG).decode()
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def _fetch(url: str) -> bytes:
    assert url == "http://gateway.example.com/qr.png"
    return _PNG


@pytest.mark.parametrize(
    "text",
    [
        _BASE64,
        f"{_BASE64[:50]}\n{_BASE64[50:]}",
        f"data:image/png;base64,{_BASE64}",
        "http://gateway.example.com/qr.png",
    ],
)
def test_every_form_becomes_the_image(text: str) -> None:
    image = read(text, _fetch)
    assert image.kind == "image/png"
    assert image.data == _PNG
    assert _BASE64[:20] not in repr(image)
    assert "PNG" not in repr(image).replace("image/png", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "iVBORw0KGgo!",
        "data:image/png;base64,",
        "data:image/svg+xml," + _SVG.decode(),
        "data:image/svg+xml;base64," + base64.b64encode(_SVG).decode(),
        "data:text/html;base64," + base64.b64encode(b"<script>alert(1)</script>").decode(),
        base64.b64encode(_PNG + b"x" * MAX_IMAGE_BYTES).decode(),
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(QrImageError):
        read(text, _fetch)
