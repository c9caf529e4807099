"""HTML that was rendered once and serves all who look, for as long as it is the newest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from markupsafe import Markup


class Kept:
    """One piece for each name, ``most`` at most; safe between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._pieces: OrderedDict[tuple[str, str], tuple[object, Markup]] = OrderedDict()

    def get(self, name: tuple[str, str], version: object, render: Callable[[], str]) -> Markup:
        """Return the piece of this version, rendered now if another one or none is kept."""
        with self._lock:
            known, html = self._pieces.get(name, (None, Markup("")))
        if known != version:
            html = Markup(render())  # noqa: S704 - a template's own
            with self._lock:
                self._pieces[name] = version, html
                self._pieces.move_to_end(name)
                while len(self._pieces) > self._most:
                    self._pieces.popitem(last=False)
        return html
