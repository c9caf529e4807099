"""The pages of docs/: links lead somewhere, both languages say the same, examples are read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from demo.configuration import ROOT
from zapwatch.config import collect, parse, parse_env
from zapwatch.config.load_gateways import read_gateways
from zapwatch.gateways import NAMED_CHANNELS
from zapwatch.gateways.registry import ADAPTERS

_DOCS = ROOT / "docs"
_PORTUGUESE = _DOCS / "pt-BR"
_PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *_DOCS.rglob("*.md")]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"^\n((?: {4}\S.*\n)+)", re.MULTILINE)

TRANSLATED = (
    "proof-of-life.md",
    "messages.md",
    "missed-messages.md",
    "holiday.md",
    "start.md",
    "tls.md",
    "gateways/README.md",
    *(f"gateways/{kind}.md" for kind in ADAPTERS),
)
"""The pages that say the same in both languages; the other Portuguese ones have their own words."""


def _text(page: str) -> str:
    return (_DOCS / page).read_text(encoding="utf-8")


def _anchors(text: str) -> set[str]:
    """Return what GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", text), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def test_every_link_leads_somewhere() -> None:
    found = (
        (page, link)
        for page in _PAGES
        for link in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))
    )
    for page, link in found:
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), (page, link)
        # What is served and built is docs/ alone.
        assert page.parent == ROOT or target.is_relative_to(_DOCS), (page, link)
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target.read_text(encoding="utf-8")), (page, link)


def _links(page: Path) -> set[Path]:
    found = _LINK.findall(page.read_text(encoding="utf-8"))
    return {(page.parent / link.partition("#")[0]).resolve() for link in found}


def test_every_page_is_listed() -> None:
    top = _links(_DOCS / "README.md")
    for page in {*_DOCS.rglob("*.md")} - {_DOCS / "README.md"}:
        beside = page.parent / "README.md"
        index = _links(beside) if beside.exists() and page != beside else set()
        assert page in index | top | _links(_PORTUGUESE / "README.md"), page


def test_the_site_lists_every_page_but_those_of_alerts() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed = re.findall(r"'([^']+\.md)'", str(site["project"]["nav"]))
    pages = {str(page.relative_to(_DOCS)) for page in _DOCS.rglob("*.md")}
    assert sorted(listed) == sorted(page for page in pages if not re.search(r"runbook/[^R]", page))


def test_each_language_leads_to_the_other() -> None:
    for other in _PORTUGUESE.rglob("*.md"):
        one = _DOCS / other.relative_to(_PORTUGUESE)
        assert other in _links(one)
        assert one in _links(other)


def _in_both(text: str) -> str:
    """Return a page without the steps for another gateway, which only the English one has."""
    start, found, rest = text.partition("\n## Another one")
    return start + "\n## " * bool(found) + rest.partition("\n## ")[2]


def _commands(text: str) -> list[str]:
    """Return what is to be typed or written into files, without the comments."""
    text = _in_both(text)
    found = [block for _, _, block in _FENCED.findall(text)] + _INDENTED.findall(text)
    return [re.sub(r" *#.*", "", block) for block in found]


@pytest.mark.parametrize("page", [*TRANSLATED, "install.md"])
def test_the_portuguese_page_has_the_same_commands(page: str) -> None:
    assert _commands(_text(f"pt-BR/{page}")) == _commands(_text(page))


@pytest.mark.parametrize(
    ("page", "own"),
    [
        ("start.md", ["notify --env-file", "cat /etc/zapwatch/hook-token"]),
        # Its configuration is tested in tests/rules.
        ("prometheus.md", ["/rules/", "hook-token", "promtool check", "PROMETHEUS_URL="]),
    ],
)
def test_a_page_has_commands_that_the_tests_of_other_guides_run(page: str, own: list[str]) -> None:
    tested = [*_examples("install.md", "sh"), *_examples("tls.md", "sh")]
    untested = [block for block in _examples(page, "sh") if block not in tested]
    assert all(text in block for text, block in zip(own, untested, strict=True))


def _names(text: str) -> set[str]:
    """Return all settings, metrics, answers and the like that a text names."""
    return set(re.findall(r"`([^`]+)`", _FENCED.sub("", _in_both(text))))


@pytest.mark.parametrize("page", TRANSLATED)
def test_the_portuguese_page_names_the_same_things(page: str) -> None:
    assert _names(_text(f"pt-BR/{page}")) == _names(_text(page))


def _examples(page: str, language: str) -> list[str]:
    return [
        re.sub(f"^{indent}", "", block, flags=re.MULTILINE)
        for indent, found, block in _FENCED.findall(_text(page))
        if found == language
    ]


@pytest.mark.parametrize("kind", sorted(NAMED_CHANNELS))
def test_the_example_of_a_gateway_with_named_channels_can_be_used(
    tmp_path: Path, kind: str
) -> None:
    (example,) = _examples(f"gateways/{kind}.md", "yaml")
    path = tmp_path / "gateways.yaml"
    path.write_text(example)
    (gateway,) = read_gateways(str(path), {})
    assert gateway.type == kind


@pytest.mark.parametrize("kind", sorted(ADAPTERS.keys() - NAMED_CHANNELS - {"wrapper"}))
def test_a_gateways_example_can_be_used(kind: str) -> None:
    found = _examples(f"gateways/{kind}.md", "sh")
    (example,) = (block for block in found if "WPP_GATEWAY_TYPE=" in block)
    (gateway,) = parse(parse_env(example)).gateways
    assert gateway.type == kind


def test_our_settings_and_pixelhubs_are_read_each_in_its_way(tmp_path: Path) -> None:
    (theirs,) = _examples("gateways/wrapper.md", "ini")
    (ours,) = (b for b in _examples("gateways/wrapper.md", "sh") if b.startswith("PIXELHUB_ENV"))
    (tmp_path / "pixelhub.env").write_text(theirs)
    (tmp_path / "zapwatch.env").write_text(ours)
    sources = collect(
        str(tmp_path / "zapwatch.env"), {}, pixelhub_env=str(tmp_path / "pixelhub.env")
    )
    (gateway,) = parse(sources.values).gateways
    assert not sources.notices
    assert gateway.message_log_url is not None
    assert gateway.message_log_url.password == "a word #1"
    assert gateway.silent_hours == 6


def _settings_in(page: Path) -> dict[str, str]:
    """Return the settings in the blocks that hold nothing else, but for PixelHub's."""
    found = _FENCED.findall(page.read_text(encoding="utf-8"))
    blocks = (block for _, language, block in found if language != "ini")
    lines = ([line.strip() for line in block.splitlines()] for block in blocks)
    shown = (block for block in lines if all(re.match(r"[A-Z][A-Z_]+=|#", line) for line in block))
    return parse_env("\n".join(line for block in shown for line in block))


def test_settings_that_a_page_shows_can_be_copied() -> None:
    least = {
        "WPP_GATEWAY_BASE_URL": "http://127.0.0.1:8443",
        "WPP_GATEWAY_SECRET": "not-a-real-secret",
        "MESSAGE_LOG_URL": "sqlite:///log.sqlite3",
    }
    for name, value in (item for page in _PAGES for item in _settings_in(page).items()):
        if not name.startswith("WHATSAPP_HOOK_"):  # WAHA's own
            assert f"`{name}`" in _text("reference/settings.md")
            assert parse({**least, "MESSAGES_TOKEN": "x" * 20, name: value})


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_gateways_page_says_what_was_seen_on_a_real_server(kind: str) -> None:
    english = r"Seen on a real server: |No real server was seen|None of its answers was recorded"
    portuguese = r"Visto em um servidor real: |Nenhum servidor real foi visto|Nenhuma resposta dele"
    for page, seen in ((f"gateways/{kind}.md", english), (f"pt-BR/gateways/{kind}.md", portuguese)):
        text = " ".join(_text(page).partition("\n## ")[0].split())
        assert len(re.findall(seen, text)) == 1, page


@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_check_is_said_to_say_it_can_say(kind: str) -> None:
    package = ROOT / "zapwatch"
    files = [package / "http.py", *(package / "gateways").glob("*.py")]
    source = "".join(file.read_text() for file in files)
    table = _text(f"gateways/{kind}.md").partition("| `check --verbose` says |")[2]
    said = re.findall(r"^\| `([^`]+)`(?: or `([^`]+)`)? ", table, re.MULTILINE)
    lines = [line for pair in said for line in pair if line]
    assert lines
    for line in lines:
        # Numbers are put in later.
        assert all(part in source for part in re.split(r"\d+", line)), line
