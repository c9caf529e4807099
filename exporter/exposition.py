"""The exporter's /metrics as bytes that are ready before a scrape asks for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from zapwatch.clock import Clock
from zapwatch.metrics import Format, Page, encode, make_page, negotiate

_log = logging.getLogger("exporter")

_KEEP_SECONDS = 300.0  # for which a format is rendered after its last scrape
_REST = 4  # times as long as the last rendering took


class MetricsPage:
    """One cache of bytes for each format that is scraped: text, OpenMetrics, each also gzipped.

    A scrape hands out the last bytes and never waits for a rendering, except the first scrape of a
    format. invalidate(), which the StateStore calls at each update, lets one thread render all
    formats that were scraped within the last five minutes. The thread then rests four times as long
    as the rendering took, so that it needs a fifth of a core at most, however many gateways are
    polled. 10,000 channels take half a second on an idle machine, and so are up to three seconds
    late.

    Values that change between two polls, such as the counters of posted events and ``process_*``,
    are as of the last rendering, and so lag by one poll.
    """

    def __init__(self, registry: CollectorRegistry, *, clock: Clock | None = None) -> None:
        self._registry = registry
        self._clock = clock or Clock()
        self._changed = threading.Event()
        self._rendering = threading.Lock()
        self._scraped_at: dict[Format, float] = {}
        self._pages: dict[Format, Page] = {}

    def start(self) -> None:
        """Render after each change, in a thread that does not keep the program from ending."""
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def invalidate(self) -> None:
        """Have the formats rendered again soon; return at once."""
        self._changed.set()

    def get(self, accept: str, accept_encoding: str, names: Collection[str] = ()) -> Page:
        """Return the page for the two request headers.

        With ``names``, those of ``name[]``, it is rendered for this request with these series only.
        """
        wanted = negotiate(accept, accept_encoding)
        if names:
            with self._rendering:
                return self._render(self._registry.restricted_registry(names), [wanted])[wanted]
        self._scraped_at[wanted] = self._clock.monotonic()
        page = self._pages.get(wanted)
        if page is None:
            with self._rendering:
                if wanted not in self._pages:
                    self._pages = {**self._pages, **self._render(self._registry, [wanted])}
                page = self._pages[wanted]
        return page

    def refresh(self) -> None:
        """Render every format that is scraped. Raises nothing."""
        with self._rendering:
            self._changed.clear()
            oldest = self._clock.monotonic() - _KEEP_SECONDS
            formats = [wanted for wanted, at in self._scraped_at.copy().items() if at >= oldest]
            try:
                self._pages = self._render(self._registry, formats)
            except Exception:  # noqa: BLE001
                # The next change is rendered all the same. A scrape meanwhile gets the error.
                _log.exception("the metrics cannot be rendered, a fault of the exporter itself")
                self._pages = {}

    def _run(self) -> None:
        while self._changed.wait():
            started = self._clock.monotonic()
            self.refresh()
            self._clock.sleep(_REST * (self._clock.monotonic() - started))

    @staticmethod
    def _render(registry: Collector, formats: Iterable[Format]) -> dict[Format, Page]:
        texts: dict[bool, bytes] = {}
        pages = {}
        for wanted in formats:
            if wanted.openmetrics not in texts:
                texts[wanted.openmetrics] = encode(registry, openmetrics=wanted.openmetrics)
            pages[wanted] = make_page(texts[wanted.openmetrics], wanted)
        return pages
