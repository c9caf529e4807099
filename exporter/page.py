"""The text of /metrics, made when a snapshot is pinned and not when somebody asks for it."""

from __future__ import annotations

import logging
import operator
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client.exposition import gzip_accepted

from exporter.metrics import Section
from exporter.snapshot import Board, Snapshot
from whatsapp.exposition import Page, encode, page, wants_openmetrics

_log = logging.getLogger("exporter")

_END = b"# EOF\n"  # of a text in OpenMetrics
_KEEP_SECONDS = 300.0  # for which a form is made ready after somebody last asked for it


@dataclass(frozen=True, slots=True)
class _Form:
    openmetrics: bool
    compressed: bool


class MetricsPage:
    """Renders each snapshot once for each form that is asked for, however many scrapes come.

    10,000 channels take most of a second to write. The thread that pins a snapshot does it, so that
    no scrape waits for that; only the first one that asks for a form does. A section in which
    nothing has changed is not written again.
    """

    def __init__(self, board: Board, sections: Sequence[Section]) -> None:
        self._board = board
        self._sections = sections
        self._lock = threading.Lock()
        self._asked_at: dict[_Form, float] = {}
        self._rendered: Snapshot | None = None
        self._texts: dict[tuple[bool, int], tuple[tuple[object, ...], bytes]] = {}
        self._pages: dict[_Form, Page] = {}
        board.watch(self._refresh)

    def get(self, accept: str, accept_encoding: str) -> Page:
        """Return the page for the two request headers."""
        form = _Form(wants_openmetrics(accept), gzip_accepted(accept_encoding))
        self._asked_at[form] = time.monotonic()
        ready = self._pages.get(form)
        if ready is None:
            with self._lock:
                if form not in self._pages:
                    # Beside the others, which go on being handed out meanwhile.
                    self._pages = {**self._pages, form: self._render(form)}
                ready = self._pages[form]
        return ready

    def _refresh(self) -> None:
        """Render the forms that are asked for, of the present snapshot. Raises nothing."""
        with self._lock:
            snapshot = self._board.snapshot
            if snapshot is self._rendered:
                return  # by the thread that pinned just before
            self._rendered = snapshot
            oldest = time.monotonic() - _KEEP_SECONDS
            forms = [form for form, at in self._asked_at.copy().items() if at >= oldest]
            kinds = {form.openmetrics for form in forms}
            self._texts = {key: text for key, text in self._texts.items() if key[0] in kinds}
            try:
                self._pages = {form: self._render(form) for form in forms}
            except Exception:  # noqa: BLE001
                # Unforeseen, but the poller that pinned must go on. Who asks now is told.
                _log.exception("the metrics cannot be rendered, a fault of the exporter itself")
                self._pages = {}

    def _render(self, form: _Form) -> Page:
        texts = [
            self._text(number, openmetrics=form.openmetrics)
            for number in range(len(self._sections))
        ]
        if form.openmetrics:
            texts = [text.removesuffix(_END) for text in texts] + [_END]
        return page(b"".join(texts), openmetrics=form.openmetrics, compressed=form.compressed)

    def _text(self, number: int, *, openmetrics: bool) -> bytes:
        section = self._sections[number]
        parts = section.made_of(self._board.snapshot)
        before, text = self._texts.get((openmetrics, number), (None, b""))
        if before is None or not _same(parts, before):
            text = encode(section.registry, openmetrics=openmetrics)
            self._texts[openmetrics, number] = parts, text
        return text


def _same(parts: tuple[object, ...], before: tuple[object, ...]) -> bool:
    return len(parts) == len(before) and all(map(operator.is_, parts, before))
