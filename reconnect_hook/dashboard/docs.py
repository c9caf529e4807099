"""The documentation below ``/docs/``: the Markdown files of ``docs/``, without a login."""

from __future__ import annotations

import posixpath
import re
from functools import cache
from typing import NamedTuple

from flask import Blueprint, abort, make_response, redirect, render_template, request, send_file
from flask import url_for as address_of
from markdown_it import MarkdownIt
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.dashboard.i18n import locale
from zapwatch.setup.files import ROOT

_FOLDER = ROOT / "docs"
_LANGUAGES = {"pt-BR/": "pt_BR", "": "en"}
_IMAGE_SECONDS = 86400


class _Source(NamedTuple):
    """A Markdown file: its page, which both languages share, and its own language."""

    page: str
    """Path below ``/docs/``: empty for the index, with a trailing slash for a folder's."""
    language: str


def _source(path: str) -> _Source:
    """Return page and language of a file, such as ``pt-BR/gateways/README.md``."""
    prefix = next(prefix for prefix in _LANGUAGES if path.startswith(prefix))
    page = path.removeprefix(prefix).removesuffix(".md")
    return _Source(
        page.removesuffix("README") if page.endswith("README") else page, _LANGUAGES[prefix]
    )


class Documentation:
    """Serves the files found at the start; no other file is opened."""

    def __init__(self) -> None:
        self._files = {
            _source(path.relative_to(_FOLDER).as_posix()): path for path in _FOLDER.rglob("*.md")
        }
        self._pages = {source.page for source in self._files}
        images = (_FOLDER / "images").glob("*.*")
        self._images = {path.relative_to(_FOLDER).as_posix(): path for path in images}
        self._markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
        self._rendered = cache(self._render)

    def add_to(self, routes: Blueprint) -> None:
        """Register the routes."""
        routes.add_url_rule("/docs/", "docs", self._answer, defaults={"page": ""})
        routes.add_url_rule("/docs/<path:page>", "docs", self._answer)

    def runbook(self, alert: str) -> str:
        """Return the URL of an alert's runbook page, or an empty string."""
        page = f"runbook/{alert}"
        return address_of("page.docs", page=page) if page in self._pages else ""

    def _answer(self, page: str) -> AnyResponse:
        if page in self._images:
            return send_file(self._images[page], max_age=_IMAGE_SECONDS)
        if f"{page}/" in self._pages:
            return redirect(address_of("page.docs", page=f"{page}/"))
        if page not in self._pages:
            abort(404)
        reader = locale()
        source = _Source(page, reader)
        if source not in self._files:
            source = next(one for one in self._files if one.page == page)
        title, body = self._rendered(source, reader)
        answer = make_response(
            render_template(
                "docs.html",
                logged_in=False,
                title=title,
                body=body,
                tag=source.language.replace("_", "-"),
                is_index=not page,
            )
        )
        answer.headers["Cache-Control"] = "no-cache"
        answer.vary.update(("Accept-Language", "Cookie"))
        answer.add_etag()
        return answer.make_conditional(request)

    def _render(self, source: _Source, reader: str) -> tuple[str, Markup]:
        """Return a file's title and its HTML for a reader's language; links are relative."""
        tokens = self._markdown.parse(self._files[source].read_text(encoding="utf-8"))
        title = ""
        for number, token in enumerate(tokens):
            for part in token.children or ():
                for name in {"href", "src"} & part.attrs.keys():
                    part.attrSet(name, self._link(source, str(part.attrs[name]), reader))
            if token.type == "heading_open":
                parts = tokens[number + 1].children or ()
                text = "".join(p.content for p in parts if p.type in {"text", "code_inline"})
                title = title or text
                token.attrSet("id", anchor(text))
        html = self._markdown.renderer.render(tokens, self._markdown.options, {})
        # An alert's name is wider than a phone.
        html = re.sub("<h1.*", lambda line: re.sub("(?<=[a-z])(?=[A-Z])", "<wbr>", line[0]), html)
        return title, Markup(html)  # noqa: S704 - shipped files, without raw HTML

    def _link(self, source: _Source, link: str, reader: str) -> str:
        """Return the target of a file's link, relative to the file's page."""
        path, mark, fragment = link.partition("#")
        if re.match(r"\w+:", link) or not path:
            return link
        here = self._files[source].relative_to(_FOLDER).as_posix()
        there = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
        if there in self._images:
            return posixpath.relpath(there, posixpath.dirname(source.page) or ".")
        target = _source(there)
        address = posixpath.relpath(target.page or ".", posixpath.dirname(source.page) or ".")
        slash = "/" if not target.page or target.page.endswith("/") else ""
        if source._replace(page=target.page) in self._files and target.language != source.language:
            return f"{address}{slash}?lang={target.language}{mark}{fragment}"  # switch language
        if target.language != reader and target._replace(language=reader) in self._files:
            return f"{address}{slash}"  # translated headings have other anchors
        return f"{address}{slash}{mark}{fragment}"


def anchor(heading: str) -> str:
    """Return the id that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
