"""The text of /metrics: what all gateways' metrics say, each metric once."""

from __future__ import annotations

import operator
import struct
import zlib
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import gzip_accepted

from exporter.snapshot import Board
from exporter.texts import Family, Form, Section, Texts, pack_once
from whatsapp import __version__
from whatsapp.exposition import Page, headers, wants_openmetrics

_END = b"# EOF\n"  # of a text in OpenMetrics
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
    return Texts(Board(), [Section(registry, lambda _: ())])


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
        texts.append(_END)
    fields = headers(openmetrics=form.openmetrics, compressed=form.compressed)
    if not form.compressed:
        return Page(b"".join(texts), fields)
    packed = [
        packed
        for header, families in found.items()
        for packed in (pack_once(header), *(family.packed for family in families))
    ]
    if form.openmetrics:
        packed.append(pack_once(_END))
    checksum = size = 0
    for text in texts:
        checksum = zlib.crc32(text, checksum)
        size += len(text)
    trailer = struct.pack("<LL", checksum, size % 2**32)
    return Page(b"".join([_GZIP, *packed, _LAST, trailer]), fields)
