"""Every sentence of the page is there in both languages, and compiled."""

from __future__ import annotations

import io
import re
from itertools import chain
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

import reconnect_hook
from reconnect_hook import dashboard as package
from reconnect_hook.dashboard import i18n
from reconnect_hook.dashboard.channel_view import ChannelHealth
from reconnect_hook.dashboard.qr import QrState
from reconnect_hook.dashboard.snapshot import Problem
from reconnect_hook.models import Outcome, RepairCause
from zapwatch import gateways, setup

_TRANSLATED = (Path(package.__file__).parent, Path(setup.__file__).parent)
_FOLDER = Path("translations", "pt_BR", "LC_MESSAGES")
_METHODS = [("**.py", "python"), ("templates/**.html", "jinja2")]
_PLACE = re.compile(r"%\(\w+\)s")


each_package = pytest.mark.parametrize("folder", _TRANSLATED, ids=lambda folder: folder.name)


def _catalog(folder: Path) -> Catalog:
    with (folder / _FOLDER / "messages.po").open("rb") as file:
        return read_po(file, locale="pt_BR")


def _both(message: Message) -> tuple[list[str], list[str]]:
    ids = [message.id] if isinstance(message.id, str) else list(message.id)
    texts = [message.string] if isinstance(message.string, str) else list(message.string or ())
    return ids, texts


@each_package
def test_every_sentence_is_translated_and_nothing_else_is(folder: Path) -> None:
    said = set()
    # init also shows the hints of the gateways' adapters.
    for source in filter(Path.is_dir, (folder, folder.parent / "gateways")):
        for _file, _line, found, _comments, context in extract_from_dir(
            source, method_map=_METHODS, keywords=DEFAULT_KEYWORDS
        ):
            said.add((context, found if isinstance(found, str) else found[0]))
    # Babel finds no calls in f-strings.
    assert not [file for file in folder.glob("*.py") if "{_(" in file.read_text()]
    known = {
        (message.context, _both(message)[0][0]) for message in _catalog(folder) if message.id != ""
    }
    assert said == known


@each_package
def test_translations_are_whole_and_keep_their_places(folder: Path) -> None:
    for message in _catalog(folder):
        if message.id:
            ids, texts = _both(message)
            assert all(texts), ids
            assert len(ids) == len(texts)
            assert not message.fuzzy
            for text in texts:
                assert set(_PLACE.findall(text)) == set(_PLACE.findall(ids[-1])), ids


@each_package
def test_what_is_compiled_is_what_is_written(folder: Path) -> None:
    fresh = io.BytesIO()
    write_mo(fresh, _catalog(folder))
    compiled = (folder / _FOLDER / "messages.mo").read_bytes()
    assert fresh.getvalue() == compiled, "make translations"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (ChannelHealth, i18n.KINDS),
        (ChannelHealth, i18n.MEANINGS),
        (Outcome, i18n.OUTCOMES),
        (RepairCause, i18n.REASONS),
        (Problem, i18n.TROUBLES),
        (QrState, i18n.QR_STATES),
    ],
)
def test_there_are_words_for_everything(names: type, said: dict[str, object]) -> None:
    assert set(said) == set(names)  # type: ignore[call-overload]


def test_the_translated_details_of_audits_are_those_that_are_written() -> None:
    folders = [Path(reconnect_hook.__file__).parent, Path(gateways.__file__).parent]
    source = "".join(file.read_text() for folder in folders for file in folder.glob("*.py"))
    assert [text for text in i18n.AUDIT_DETAILS if text not in source] == []
    read = "".join(file.read_text() for file in folders[1].glob("*.py"))
    places = r"(?:ChatError\(|cannot_know=|self\.why = )"
    written = re.findall(places + r'f?"(?:\{[^}]*\} )?([^"]+)"', read)
    assert len(written) > 5
    assert set(written) <= i18n.AUDIT_DETAILS


# What the pages of docs/ quote as *a name* or "a name": of WhatsApp, Evolution and the services
# that notify. The last line has words of Zapwatch's own and of payloads.
_OTHERS = {
    *("Conectar dispositivo", "Dispositivos conectados", "Link a device", "Linked devices"),
    *("Apps", "Connect", "Incoming WebHooks", "Incoming Webhooks", "Integrations", "Integrações"),
    *("Configurações do servidor", "Push", "Server settings", "Webhooks"),
    *("Ages", "Cannot know", "Não se pode saber", "Message", "Token", "Your own gateway"),
}
_QUOTED = re.compile(r"(?<![*\w])\*([A-Z][^*`\[]*[^*`\[.])\*(?![*\w])|\"([A-Z][^\"`]*[a-z])\"")


@pytest.mark.parametrize("language", ["en", "pt-BR"])
def test_the_manual_names_buttons_and_headings_as_the_page_does(language: str) -> None:
    known: list[str] = []
    for message in chain.from_iterable(_catalog(folder) for folder in _TRANSLATED):
        known += _both(message)[language != "en"]
    docs = Path(package.__file__).parents[2] / "docs"
    ours = {name.rstrip(" .…:") for name in known}
    for path in docs.rglob("*.md"):
        if path.name == "grafana.md" or path.is_relative_to(docs / "pt-BR") != (language != "en"):
            continue  # tests/grafana compares that page
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        quoted = {" ".join((one or other).split()) for one, other in _QUOTED.findall(text)}
        assert quoted - ours <= _OTHERS, path
