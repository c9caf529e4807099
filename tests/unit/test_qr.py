"""QR codes: a watch starts a session that has ended; an image is safe to show, or none."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import cast

import pytest

from demo.simulator.qr_image import png
from reconnect_hook.dashboard.qr import (
    MAX_IMAGE_BYTES,
    MOST_AT_ONCE,
    QrImageError,
    QrState,
    QrWatches,
    read,
)
from tests.support.clock import HandMovedClock
from tests.support.waiting import TIMEOUT
from zapwatch.db import UnavailableError
from zapwatch.gateways.base import (
    Gateway,
    GatewayError,
    GatewayErrorKind,
    Operation,
    QrAnswer,
    QrKind,
)

_CODE = QrAnswer(QrKind.QR, base64.b64encode(png(1)).decode())
_NOT_STARTED = QrAnswer(QrKind.NOT_STARTED)


class _LookingClock(HandMovedClock):
    """A clock whose pauses a viewer can use to look, while no time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.look: Callable[[float], None] = super().sleep

    def sleep(self, seconds: float) -> None:
        self.look(seconds)


class _Viewed:
    """A gateway that gives one answer after the other, and a viewer who looks until the last."""

    def __init__(
        self,
        *answers: QrAnswer | Exception,
        connected: Callable[[str], None] = lambda _: None,
        is_counted: bool = False,
    ) -> None:
        self.clock = _LookingClock()
        self.started_at: list[float] = []
        client = cast(Gateway, self)
        self.watches = QrWatches(client, connected, self.clock, is_counted=is_counted)
        self._answers = list(answers)

    def qr(self, channel: str) -> QrAnswer:
        if len(self._answers) > 1:
            self.watches.look(channel)
        else:
            self.clock.forward(3600.0)  # and nobody looks meanwhile
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get_image(self, url: str) -> bytes:
        raise AssertionError(f"{url} is no link of a code here")

    def start_session(self, _channel: str) -> None:
        self.started_at.append(self.clock.time())

    def view(self, channel: str = "loja") -> QrState:
        """Look until the gateway has given its last answer."""
        state, _ = self.watches.look(channel)
        for thread in threading.enumerate():
            if thread.name == "qr":
                thread.join(TIMEOUT)
                assert not thread.is_alive()
        return state


def test_a_code_that_came_and_went_between_two_calls_is_asked_for_again() -> None:
    viewed = _Viewed(*[_NOT_STARTED] * 60, _CODE)
    viewed.view()
    pauses = [b - a for a, b in zip(viewed.started_at, viewed.started_at[1:], strict=False)]
    assert pauses, "the session was started again"
    assert min(pauses) >= 15.0, "but not while it may still be starting"


@pytest.mark.parametrize("code", [_CODE, QrAnswer(QrKind.QR), QrAnswer(QrKind.QR, "bm8=")])
def test_a_session_that_ends_after_a_code_is_started_at_once(code: QrAnswer) -> None:
    viewed = _Viewed(_NOT_STARTED, code, _NOT_STARTED, _CODE)
    viewed.view()
    first, second = viewed.started_at
    assert second - first < 15.0


def test_a_watch_goes_on_after_a_thread_that_could_not_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    viewed = _Viewed(_CODE)

    def cannot_start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot_start)
        for number in range(MOST_AT_ONCE):
            with pytest.raises(RuntimeError, match="new thread"):
                viewed.watches.look(f"channel {number}")
    assert viewed.view() is not QrState.BUSY
    assert not viewed._answers


def test_a_gateway_whose_requests_are_counted_is_asked_for_each_code_once() -> None:
    limit = GatewayError(Operation.QR, GatewayErrorKind.LIMIT, "made up")
    viewed = _Viewed(_CODE, limit, _CODE, is_counted=True)
    seen: list[tuple[float, QrState]] = []

    def look_on(seconds: float) -> None:
        if viewed._answers:
            seen.append((seconds, viewed.watches.look("loja")[0]))

    viewed.clock.look = look_on
    viewed.view()
    assert seen == [(15.0, QrState.CODE), (15.0, QrState.LIMITED)]


def test_a_channel_whose_connection_could_not_be_told_is_asked_for_again() -> None:
    def cannot_tell(_channel: str) -> None:
        raise UnavailableError("the disk is full")

    viewed = _Viewed(QrAnswer(QrKind.ACCEPTED), _CODE, connected=cannot_tell)
    viewed.view()
    viewed.clock.forward(3600.0)
    viewed.view()
    assert not viewed._answers


def test_a_fault_of_the_hook_itself_does_not_end_the_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    viewed = _Viewed(RuntimeError("oops"), _CODE)
    viewed.view()
    assert not viewed._answers
    assert "internal error" in caplog.text


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
