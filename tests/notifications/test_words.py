"""The sentences of the two languages, some for every alert; and docs/notifications.md on them."""

from __future__ import annotations

import re

import pytest

from demo.configuration import ROOT
from reconnect_hook.delivery import WebhookFault
from tests.support.shipped import (
    ALERTMANAGER,
    ALERTS,
    EXAMPLES,
    LANGUAGES,
    PROMTOOL_TESTS,
    TEMPLATES,
    read_yaml,
)
from zapwatch.alertmanager import TEST_ALERT

_GUIDE = (ROOT / "docs" / "notifications.md").read_text(encoding="utf-8")
# What is being repaired needs nobody: these three share their other sentences.
COMMON_WORDS = {"WhatsAppChannelDisconnected", "WhatsAppChannelSilent", "WhatsAppChannelNeverHeard"}


def definitions(language: str) -> dict[str, str]:
    text = (TEMPLATES / language / "words.tmpl").read_text(encoding="utf-8")
    found = re.split(r'{{ define "([\w.]+)" -?}}', text)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def test_portuguese_and_english_say_the_same_things() -> None:
    assert LANGUAGES == ["en", "pt-BR"]
    chosen = read_yaml(ALERTMANAGER / "alertmanager.yml")["templates"]
    assert chosen == ["templates/*.tmpl", "templates/pt-BR/*.tmpl"]
    assert set(definitions("en")) == set(definitions("pt-BR"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("sentence", ["what", "tried", "do"])
def test_there_is_a_sentence_for_every_alert(language: str, sentence: str) -> None:
    said = set(re.findall(r'"(WhatsApp\w+)"', definitions(language)[f"zapwatch.{sentence}"]))
    names = {alert.name for alert in ALERTS} - {"Watchdog"} | {TEST_ALERT}
    common = {"what": set(), "tried": COMMON_WORDS, "do": COMMON_WORDS | {"WhatsAppChannelSuspect"}}
    assert said == names - common[sentence]


@pytest.mark.parametrize("language", LANGUAGES)
def test_facts_are_read_from_descriptions_as_the_rules_write_them(language: str) -> None:
    tried = definitions(language)["zapwatch.tried"]
    patterns = re.findall(r"`([^`]+)` (?:\"\$1\" )?\(index \. 5\)", tried)
    faults = [one for one in patterns if one.startswith("settings: ")]
    assert faults == [rf"settings: {one}\." for one in WebhookFault]
    assert len(patterns) == 6 + len(faults)
    tests = "".join(path.read_text(encoding="utf-8") for path in PROMTOOL_TESTS)
    folded = " ".join(tests.split())
    for pattern in [*(set(patterns) - set(faults)), faults[0]]:
        assert re.search(pattern, folded), pattern


def test_a_sentence_has_no_character_that_a_service_takes_for_markup() -> None:
    """Escaped is what comes from outside; the sentences themselves go out as they are."""
    for language in LANGUAGES:
        for name, text in definitions(language).items():
            sentence = re.sub(r"{{.*?}}", "", text, flags=re.DOTALL)
            assert not set(sentence) & set("<>&`[]"), (language, name)


def test_every_file_that_the_guide_names_is_there() -> None:
    named = set(re.findall(r"templates/[\w*/.-]+", _GUIDE))
    assert {f"templates/{language}/*.tmpl" for language in LANGUAGES} <= named
    for pattern in named:
        assert list(ALERTMANAGER.glob(pattern)), pattern


def test_the_address_is_set_as_the_guide_says() -> None:
    (line,) = re.findall(r'{{ define "zapwatch.url" }}.*', _GUIDE)
    shipped = (ALERTMANAGER / "templates" / "address.tmpl").read_text(encoding="utf-8")
    assert line.replace("https://zapwatch.example.com", "http://127.0.0.1:9862") in shipped


def test_every_way_to_reach_people_has_its_part_in_the_guide() -> None:
    assert all(f"`{example}`" in _GUIDE for example in EXAMPLES)
