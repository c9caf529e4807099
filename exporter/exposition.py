"""One gateway's metrics as text, made when a snapshot is pinned and not when somebody asks."""

from __future__ import annotations

import logging
import operator
import struct
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import gzip_accepted

from exporter.snapshot import Snapshot, StateStore
from zapwatch import __version__
from zapwatch.metrics import Page, encode, headers, wants_openmetrics

_log = logging.getLogger("exporter")

_END = b"# EOF\n"  # of a text in OpenMetrics
_HELP = b"# HELP "  # with which each family begins
_KEEP_SECONDS = 300.0  # for which a form is made ready after somebody last asked for it
_LEVEL = 5


@dataclass(frozen=True, slots=True)
class Form:
    """What can be asked for."""

    openmetrics: bool
    compressed: bool


@dataclass(frozen=True, slots=True)
class Family:
    """A metric's help and type, and its samples; ``packed`` are the samples, see pack()."""

    header: bytes
    samples: bytes
    packed: bytes


@dataclass(frozen=True, slots=True)
class Section:
    """A part of all metrics, and what of a snapshot it is made of.

    Nothing else goes into its text: it has to be written again only where one of the parts that
    ``made_of`` returns is another object than before.
    """

    registry: CollectorRegistry
    made_of: Callable[[Snapshot], tuple[object, ...]]


class Texts:
    """Writes each snapshot once for each form that is asked for, however many scrapes come.

    10,000 channels take most of a second to write. The thread that pins a snapshot does it, so that
    no scrape waits for that; only the first one that asks for a form does. A section in which
    nothing has changed is not written again.
    """

    def __init__(self, board: StateStore, sections: Sequence[Section]) -> None:
        self._board = board
        self._sections = sections
        self._lock = threading.Lock()
        self._asked_at: dict[Form, float] = {}
        self._rendered: Snapshot | None = None
        self._written: dict[tuple[Form, int], tuple[tuple[object, ...], tuple[Family, ...]]] = {}
        self._ready: dict[Form, tuple[Family, ...]] = {}
        board.watch(self._refresh)

    def get(self, form: Form) -> tuple[Family, ...]:
        """Return all families; the very same object for as long as nothing has changed."""
        self._asked_at[form] = time.monotonic()
        ready = self._ready.get(form)
        if ready is None:
            with self._lock:
                if form not in self._ready:
                    # Beside the others, which go on being handed out meanwhile.
                    self._ready = {**self._ready, form: self._render(form)}
                ready = self._ready[form]
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
            self._written = {key: kept for key, kept in self._written.items() if key[0] in forms}
            try:
                self._ready = {form: self._render(form) for form in forms}
            except Exception:  # noqa: BLE001
                # Unforeseen, but the poller that pinned must go on. Who asks now is told.
                _log.exception("the metrics cannot be rendered, a fault of the exporter itself")
                self._ready = {}

    def _render(self, form: Form) -> tuple[Family, ...]:
        return tuple(
            family for number in range(len(self._sections)) for family in self._of(number, form)
        )

    def _of(self, number: int, form: Form) -> tuple[Family, ...]:
        """Return a section's families, as they were written before where they still are so."""
        section = self._sections[number]
        parts = section.made_of(self._board.snapshot)
        other = Form(form.openmetrics, not form.compressed)
        known = self._written.get((form, number))
        if known is not None and _same(parts, known[0]):
            return known[1]
        beside = self._written.get((other, number))
        if beside is not None and _same(parts, beside[0]):
            families = beside[1]
        else:
            families = split(encode(section.registry, openmetrics=form.openmetrics))
        if form.compressed:
            families = tuple(Family(f.header, f.samples, pack(f.samples)) for f in families)
        self._written[form, number] = parts, families
        return families


def split(text: bytes) -> tuple[Family, ...]:
    """Return the families of a text in either format, none of them packed."""
    text = text.removesuffix(_END)
    if not text:
        return ()
    families = []
    # In a help text or label a line end is escaped, so this is the beginning of a family indeed.
    for chunk in text.removeprefix(_HELP).removesuffix(b"\n").split(b"\n" + _HELP):
        family = _HELP + chunk + b"\n"
        end = family.index(b"\n") + 1
        while family.startswith(b"#", end):
            end = family.index(b"\n", end) + 1
        families.append(Family(family[:end], family[end:], b""))
    return tuple(families)


def pack(text: bytes) -> bytes:
    """Return a text as a part of a deflated stream, which can follow any other such part."""
    if not text:
        return b""
    packer = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
    return packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)


@lru_cache(maxsize=1000)
def pack_once(header: bytes) -> bytes:
    """Return what pack() does of a text that comes again and again, such as a header."""
    return pack(header)


def _same(parts: tuple[object, ...], before: tuple[object, ...]) -> bool:
    return len(parts) == len(before) and all(map(operator.is_, parts, before))


_PAGE_END = b"# EOF\n"  # of a text in OpenMetrics
_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, from an unknown system
_LAST = b"\x03\x00"  # an empty block, which ends a deflated stream

_Parts = tuple[tuple[Family, ...], ...]


class MetricsPage:
    """Puts together what is ready of each gateway; writing and compressing was done before.

    A scrape costs a copy and a checksum, and not even those where nothing has changed.
    """

    def __init__(self, texts: Sequence[Texts] = ()) -> None:
        self._texts = tuple(texts)
        self._own = _of_the_program()
        self._pages: dict[Form, tuple[_Parts, Page]] = {}

    def show(self, texts: Sequence[Texts]) -> None:
        """Show these gateways from now on, and no others."""
        self._texts = tuple(texts)

    def get(self, accept: str, accept_encoding: str) -> Page:
        """Return the page for the two request headers."""
        form = Form(wants_openmetrics(accept), gzip_accepted(accept_encoding))
        parts = *(texts.get(form) for texts in self._texts), self._own.get(form)
        before, page = self._pages.get(form, ((), None))
        if page is None or len(parts) != len(before) or not all(map(operator.is_, parts, before)):
            page = _put_together(parts, form)
            self._pages[form] = parts, page
        return page


def _of_the_program() -> Texts:
    registry = CollectorRegistry()
    Gauge(
        "whatsapp_exporter_build_info",
        "The exporter's version, as a label of the value 1.",
        ["version"],
        registry=registry,
    ).labels(__version__).set(1)
    return Texts(StateStore(), [Section(registry, lambda _: ())])


def _put_together(parts: _Parts, form: Form) -> Page:
    # All samples of a metric must stand together, under one header.
    found: dict[bytes, list[Family]] = {}
    for families in parts:
        for family in families:
            found.setdefault(family.header, []).append(family)
    texts = [
        text
        for header, families in found.items()
        for text in (header, *(family.samples for family in families))
    ]
    if form.openmetrics:
        texts.append(_PAGE_END)
    fields = headers(openmetrics=form.openmetrics, compressed=form.compressed)
    if not form.compressed:
        return Page(b"".join(texts), fields)
    packed = [
        packed
        for header, families in found.items()
        for packed in (pack_once(header), *(family.packed for family in families))
    ]
    if form.openmetrics:
        packed.append(pack_once(_PAGE_END))
    checksum = size = 0
    for text in texts:
        checksum = zlib.crc32(text, checksum)
        size += len(text)
    trailer = struct.pack("<LL", checksum, size % 2**32)
    return Page(b"".join([_GZIP, *packed, _LAST, trailer]), fields)
